"""What a model says of its own segmentation, without a reference.

Expected Dice of a segmentation under the model's own softmax, entropy where it sees a
lesion, volume and number of pieces; and simple statistics of the image itself. Only
numbers leave these functions: a softmax takes as much space as the images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# Of each channel, over the voxels that are not exactly zero.
IMAGE_STATISTICS = ("mean", "sd", "p5", "p25", "p50", "p75", "p95")
# Of a large image every n-th voxel will do.
_MOST_VALUES = 2**20


def from_logits(
    logits: torch.Tensor, regions: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, float]]:
    """Expected Dice and entropy of each region, on the grid of the logits.

    With p the probability that a voxel belongs to the region (the sum over its labels)
    and s the segmentation (1 where the most probable class is one of them):

        expected_dice = 2 Σ p s / (Σ p + Σ s)

    which is the Dice of s against a reference drawn from p, numerator and denominator
    in expectation (the soft Dice of Milletari et al., 3DV 2016, of a model against
    itself). It is 0 for a region that is not segmented anywhere. `entropy` is the mean
    entropy of the softmax over s in units of the largest possible one (log of the
    number of classes); NaN where s is empty.

    Args:
        logits: (class, a, b, c), class 0 the background.
        regions: name to label numbers, each above 0.
    """
    import torch

    with torch.inference_mode():
        log_p = torch.log_softmax(logits.float(), dim=0)
        p = log_p.exp()
        entropy = -(p * log_p).sum(dim=0) / math.log(len(logits))
        label = logits.argmax(dim=0)
        found = {}
        for name, numbers in regions.items():
            members = torch.tensor(list(numbers), device=label.device)
            here = torch.isin(label, members)
            probability = p[list(numbers)].sum(dim=0)
            size = int(here.sum())
            inside = float(probability[here].sum(dtype=torch.float64))
            total = float(probability.sum(dtype=torch.float64)) + size
            found[name] = {
                "expected_dice": 2 * inside / total if total > 0 else math.nan,
                "entropy": float(entropy[here].mean()) if size else math.nan,
            }
    return found


def from_label_map(
    label_map: np.ndarray,
    regions: Mapping[str, Sequence[int]],
    spacing: Sequence[float],
) -> dict[str, dict[str, float]]:
    """Volume in ml and number of connected pieces (26 neighbours) of each region.

    Args:
        label_map: integers (z, y, x) on the original grid.
        regions: name to label numbers.
        spacing: of the voxels, in mm, in any order.
    """
    from scipy import ndimage

    voxel_ml = float(np.prod(spacing)) / 1000
    box = ndimage.find_objects((label_map > 0).astype(np.uint8))
    inside = label_map[box[0]] if box else label_map[:0]
    found = {}
    for name, numbers in regions.items():
        here = np.isin(inside, list(numbers))
        _, pieces = ndimage.label(here, np.ones((3, 3, 3), bool))
        found[name] = {
            "volume_ml": float(here.sum()) * voxel_ml,
            "components": float(pieces),
        }
    return found


def image_statistics(data: np.ndarray) -> list[list[float]]:
    """`IMAGE_STATISTICS` of each channel of a preprocessed image (channel, a, b, c).

    Voxels that are 0 in a channel are left out there: nnU-Net leaves the outside of a
    masked image at 0. A channel without any other voxel has zeros.
    """
    statistics = []
    for channel in np.asarray(data, dtype=np.float32):
        values = channel[channel != 0]
        values = values[:: max(1, math.ceil(values.size / _MOST_VALUES))]
        if values.size == 0:
            statistics.append([0.0] * len(IMAGE_STATISTICS))
            continue
        centiles = np.percentile(values, [5, 25, 50, 75, 95])
        numbers = [values.mean(dtype=np.float64), values.std(dtype=np.float64)]
        statistics.append([float(number) for number in (*numbers, *centiles)])
    return statistics
