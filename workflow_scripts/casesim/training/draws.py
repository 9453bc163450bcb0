"""What is random in a batch: cases, places, parameters, drawn as nnU-Net draws them.

nnU-Net's loader and transforms draw, sample by sample and in their order, but nothing
is computed here: `device_batches` applies what was drawn to all samples at once. With
the same seed the numbers are those that `batches.Batches` would use, up to the first
sample that is given noise, whose values nnU-Net draws from the same stream.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.brightness import (
    MultiplicativeBrightnessTransform,
)
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import (
    SimulateLowResolutionTransform,
)
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
    DownsampleSegForDSTransform,
)
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from torch.utils.data import Dataset

from casesim.training.batches import seed_all

# The transforms of `nnUNetTrainer.get_training_transforms` for images whose voxels are
# about as long as wide, in their order; the last two of them may be missing.
_RANDOM = (
    GaussianNoiseTransform,
    GaussianBlurTransform,
    MultiplicativeBrightnessTransform,
    ContrastTransform,
    SimulateLowResolutionTransform,
    GammaTransform,
    GammaTransform,
)
_NAMES = (
    "noise",
    "blur",
    "brightness",
    "contrast",
    "low_resolution",
    "inverted_gamma",
    "gamma",
)


def can_draw(loader: nnUNetDataLoader) -> bool:
    """Whether the loader's transforms are those that are known here."""
    transforms = list(getattr(loader.transforms, "transforms", []))
    if not transforms or not isinstance(transforms[0], SpatialTransform):
        return False
    spatial, transforms = transforms[0], transforms[1:]
    inner = [
        type(transform.transform) if isinstance(transform, RandomTransform) else None
        for transform in transforms[: len(_RANDOM)]
    ]
    rest = [type(transform) for transform in transforms[len(_RANDOM) :]]
    expected = [
        MirrorTransform,
        MaskImageTransform,
        RemoveLabelTransform,
        DownsampleSegForDSTransform,
    ]
    return (
        inner == list(_RANDOM)
        and rest == [kind for kind in expected if kind in rest]
        and {RemoveLabelTransform, DownsampleSegForDSTransform} <= set(rest)
        and spatial.p_elastic_deform == 0
        and not spatial.random_crop
        and spatial.mode_seg == "bilinear"
        and spatial.border_mode_seg == "constant"
        and spatial.padding_value_seg == -1
        and spatial.padding_mode_image == "zeros"
        and spatial.seg_tiebreak == "nearest"
        and not loader.has_ignore
    )


class Draws(Dataset[dict[str, torch.Tensor]]):
    """What was drawn for batch i, a function of (seed, stream, i) alone.

    A batch of b samples, in d dimensions, is a dictionary of tensors: `case` (b) is the
    number of the case among the loader's `indices`, `corner` (b, 3) the patch's lower
    corner before the spatial transform, `affine` (n, d, d) the matrices of the samples
    `affine_at` (n), `mirror` (b, d) whether each axis is mirrored. For each transform
    of the intensities, `<name>_at` (n, 2) are samples and channels and `<name>` (n) or
    (n, d) its parameters: standard deviation of `noise`, sigmas of `blur`, factors of
    `brightness` and `contrast`, sizes of `low_resolution`, exponents of
    `inverted_gamma` and `gamma`. `seed` is for the values of the noise.
    """

    def __init__(self, loader: nnUNetDataLoader, seed: int, stream: int) -> None:
        self.loader = loader
        self._seed = (seed, stream)
        self._numbers = {name: i for i, name in enumerate(loader.indices)}
        spatial, *transforms = loader.transforms.transforms
        self._spatial = spatial
        # Its grid is made of every pixel's place, where only the matrix is wanted.
        dimensions = len(spatial.patch_size)
        spatial._get_base_grid_clone = lambda: torch.zeros(
            (*(1,) * dimensions, dimensions)
        )
        self._random = transforms[: len(_RANDOM)]
        self._mirror = next(
            (t for t in transforms if isinstance(t, MirrorTransform)), None
        )

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """What was drawn for batch `index`."""
        seed_all(*self._seed, index)
        loader = self.loader
        rows: dict[str, list[Any]] = defaultdict(list)
        for sample, key in enumerate(loader.get_indices()):
            forced = loader.get_do_oversample(sample)
            data, _, _, properties = loader._data.load_case(key)
            corner, _ = loader.get_bbox(
                data.shape[1:], forced, properties["class_locations"]
            )
            rows["case"].append(self._numbers[key])
            rows["corner"].append([int(i) for i in corner])
            self._draw(rows, sample, data.shape[0])
        packed = self._pack(rows)
        packed["seed"] = torch.tensor(int(np.random.randint(2**62)))
        return packed

    def _draw(self, rows: dict[str, list[Any]], sample: int, channels: int) -> None:
        start = loader_patch(self.loader)
        final = tuple(self._spatial.patch_size)
        affine = self._spatial.get_parameters(image=_shape(channels, start))["affine"]
        if affine is not None:
            rows["affine_at"].append(sample)
            rows["affine"].append(affine)
        image = _shape(channels, final)
        for name, transform in zip(_NAMES, self._random, strict=True):
            if not transform.get_parameters(image=image)["apply_transform"]:
                continue
            drawn = transform.transform.get_parameters(image=image)
            for channel, value in _values(name, drawn, channels, final):
                rows[f"{name}_at"].append((sample, channel))
                rows[name].append(value)
        mirrored = [False] * len(final)
        if self._mirror is not None:
            for axis in self._mirror.get_parameters(image=image)["axes"]:
                mirrored[axis] = True
        rows["mirror"].append(mirrored)

    def _pack(self, rows: dict[str, list[Any]]) -> dict[str, torch.Tensor]:
        dimensions = len(self._spatial.patch_size)
        shapes: dict[str, tuple[int, ...]] = {
            "affine": (dimensions, dimensions),
            "blur": (dimensions,),
            "low_resolution": (dimensions,),
        }
        packed = {
            name: torch.tensor(rows[name]) for name in ("case", "corner", "mirror")
        }
        for name in ("affine", *_NAMES):
            count = len(rows[name])
            places = np.array(rows[f"{name}_at"], np.int64)
            packed[f"{name}_at"] = torch.from_numpy(
                places.reshape(count, *([] if name == "affine" else [2]))
            )
            values = np.array(rows[name], np.float32)
            packed[name] = torch.from_numpy(
                values.reshape(count, *shapes.get(name, ()))
            )
        return packed


def loader_patch(loader: nnUNetDataLoader) -> tuple[int, ...]:
    """The patch that is cut out, before the spatial transform, in the plan's axes."""
    patch = tuple(int(n) for n in loader.patch_size)
    return patch[1:] if loader.patch_size_was_2d else patch


def _shape(channels: int, patch: tuple[int, ...]) -> torch.Tensor:
    """A tensor of this shape that takes no memory: transforms ask for no more."""
    return torch.zeros(()).expand(channels, *patch)


def _values(
    name: str, drawn: dict[str, Any], channels: int, patch: tuple[int, ...]
) -> list[tuple[int, Any]]:
    """Channels and their parameters, of what a transform has drawn."""
    if name == "noise":
        if drawn["num_apply"] == 0:
            return []
        return [(int(channel), drawn["sigmas"]) for channel in drawn["apply_idx"]]
    if name == "blur":
        chosen = [c for c in range(channels) if drawn["apply_to_channel"][c]]
        return list(zip(chosen, drawn["sigmas"], strict=True))
    chosen = [int(channel) for channel in drawn["apply_to_channel"]]
    if name == "low_resolution":
        sizes = [
            [round(n * s.item()) for n, s in zip(patch, scales, strict=True)]
            for scales in drawn["scales"]
        ]
        return list(zip(chosen, sizes, strict=True))
    if not chosen:
        return []
    factors = drawn["gamma" if name.endswith("gamma") else "multipliers"].tolist()
    return list(zip(chosen, factors, strict=True))
