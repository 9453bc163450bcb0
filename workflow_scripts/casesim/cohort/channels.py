"""What the channels of an image look like, and which of them is unlike the cohort's.

The rows of the similarity matrix do not see a spoilt channel: a network trained on
several learns to do without it. The image itself shows it. Each channel is described by
a few numbers that neither its gain nor its offset change, taken inside the head and
outside the labels; each number is compared with the cohort's by a robust z, and a
channel is suspect by how much *more* unusual it is than the other channels of the same
case. So a scanner that is odd in all its channels, or an odd anatomy, accuses none.

Images are (channel, z, y, x); zero in all channels is outside of the head.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage, stats

from casesim.channels import told_apart
from casesim.images import count_voxels
from casesim.memory import PROCESS_BYTES, SharedMemory

Array = npt.NDArray[np.float64]

# Of the voxels of a case so many are enough for any of the numbers.
_MOST_VOXELS = 200_000
_FEWEST_VOXELS = 200
# A number whose cohort hardly varies is not compared in units below this.
_SMALLEST_SPREAD = 0.05
# Width (voxels) of what a voxel is compared with.
_SURROUNDINGS = 4.0
# Bytes that a case takes while it is described, for each voxel, and for each of each
# channel; of those that are compared, as much again for each pair of channels.
_PER_VOXEL, _PER_CHANNEL, _PER_PAIR = 36, 12, 8
# The number of a channel that has none.
_FLAT = ""
# Beyond this, farther is not worse: one number must not outweigh all others.
_LARGEST_Z = 6.0


def describe(
    image: npt.NDArray[np.floating] | npt.NDArray[np.integer],
    labels: npt.NDArray[np.integer],
    names: Sequence[str],
) -> pd.DataFrame:
    """Numbers that say what each channel looks like.

    * `noise`: logarithm of the spread (MAD) of what a 3 x 3 x 3 median filter takes
      away, relative to the spread of the channel;
    * `skewness`, `tails`: of the histogram, by quantiles (Bowley's and Moors');
    * `edges`: correlation with itself one voxel away, in the plane (Fisher's z);
    * `with <channel>`: rank correlation with each other channel (Fisher's z).

    Args:
        image: (channel, z, y, x).
        labels: (z, y, x); labelled voxels are left out as long as enough are left.
        names: of the channels; those of one name get their numbers.

    Returns:
        `channel, number, value`, tidy; NaN for what an image without contrast has not.
    """
    names = told_apart(names)
    data = np.asarray(image, dtype=np.float32)
    head = (data != 0).any(axis=0)
    box = _box(head)
    data, head, labels = data[:, *box], head[box], labels[box]
    healthy = head & (labels == 0)
    inside = healthy if healthy.sum() >= _FEWEST_VOXELS else head
    where = np.flatnonzero(inside)
    where = where[:: max(1, len(where) // _MOST_VOXELS)]
    rows: list[tuple[str, str, float]] = []
    samples = []
    for name, channel in zip(names, map(_flatten, data), strict=True):
        values = channel.ravel()[where].astype(np.float64)
        samples.append(values)
        for number, value in _shape(values).items():
            rows.append((name, number, value))
        rest = (channel - ndimage.median_filter(channel, 3)).ravel()[where]
        with np.errstate(divide="ignore", invalid="ignore"):
            noise = np.log(np.float64(_spread(rest)) / _spread(values))
        rows.append((name, "noise", float(noise) if np.isfinite(noise) else np.nan))
        rows.append((name, "edges", _itself(channel, inside)))
    for i, name in enumerate(names):
        others = [values for j, values in enumerate(samples) if j != i]
        if others:
            rows.append((name, "unexplained", _unexplained(samples[i], others)))
    for i, j in combinations(range(len(names)), 2):
        value = _fisher(samples[i], samples[j], ranked=True)
        rows.append((names[i], f"with {names[j]}", value))
        rows.append((names[j], f"with {names[i]}", value))
    return pd.DataFrame(rows, columns=["channel", "number", "value"])


def _box(mask: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    found = ndimage.find_objects(mask.astype(np.uint8))
    return found[0] if found else tuple(slice(n) for n in mask.shape)


def _flatten(channel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The channel without its surroundings' level: a coil's profile is no defect.

    Surroundings are a Gaussian's, over the voxels that are not 0. Taken off and not
    divided by, since images may be normalised to a mean of 0.
    """
    inside = (channel != 0).astype(np.float32)
    share = ndimage.gaussian_filter(inside, _SURROUNDINGS)
    level = ndimage.gaussian_filter(channel, _SURROUNDINGS) / np.maximum(share, 1e-3)
    return np.where(inside > 0, channel - level, 0)


def _spread(values: Array) -> float:
    return float(np.median(np.abs(values - np.median(values))))


def _shape(values: Array) -> dict[str, float]:
    """Skewness (Bowley 1901) and tails (Moors, The Statistician 1988), by quantiles."""
    if values.size == 0:
        return {"skewness": np.nan, "tails": np.nan}
    q = np.quantile(values, np.arange(1, 8) / 8)
    if q[5] == q[1]:
        return {"skewness": np.nan, "tails": np.nan}
    width = q[5] - q[1]
    return {
        "skewness": float((q[5] + q[1] - 2 * q[3]) / width),
        "tails": float(np.log(((q[6] - q[4]) + (q[2] - q[0]) + 1e-6 * width) / width)),
    }


def _itself(channel: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_]) -> float:
    both = inside[:, :, 1:] & inside[:, :, :-1]
    here, there = channel[:, :, 1:][both], channel[:, :, :-1][both]
    step = max(1, len(here) // _MOST_VOXELS)
    return _fisher(here[::step].astype(float), there[::step].astype(float))


def _unexplained(values: Array, others: Sequence[Array]) -> float:
    """Logarithm of the spread that the other channels leave, relative to all of it.

    They explain by least squares, with their squares and products.
    """
    width = _spread(values)
    scaled = [(o - np.median(o)) / s for o in others if (s := _spread(o)) > 0]
    if not width or not scaled:
        return np.nan
    scaled = [np.clip(o, -5, 5) for o in scaled]
    terms = [np.ones_like(values), *scaled]
    terms += [a * b for i, a in enumerate(scaled) for b in scaled[i:]]
    design = np.stack(terms, axis=1)
    target = np.clip((values - np.median(values)) / width, -5, 5)
    weights, *_ = np.linalg.lstsq(design, target, rcond=None)
    return float(np.log(max(_spread(target - design @ weights), 1e-6)))


def _fisher(first: Array, second: Array, ranked: bool = False) -> float:
    """Fisher's z of a correlation; NaN where one side is constant."""
    if first.size < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return np.nan
    if ranked:
        first, second = stats.rankdata(first), stats.rankdata(second)
    r = float(np.corrcoef(first, second)[0, 1])
    return float(np.arctanh(np.clip(r, -0.9999, 0.9999)))


def _memory(voxels: int, channels: int) -> float:
    """Bytes that a case takes at most."""
    pairs = (channels + 1) * (channels + 2)
    compared = min(voxels, _MOST_VOXELS) * pairs * _PER_PAIR
    return voxels * (_PER_VOXEL + channels * _PER_CHANNEL) + compared


def describe_cases(
    files: Mapping[str, tuple[Sequence[str], str]],
    names: Sequence[str],
    threads: int,
    memory: float = math.inf,
) -> pd.DataFrame:
    """`describe` all cases, several at a time.

    Args:
        files: case to the images of its channels and its label map.
        names: of the channels.
        threads: how many cases there are at a time, at most.
        memory: bytes that they may take together. A case that needs more goes alone.

    Returns:
        `case, channel, number, value`.
    """
    import SimpleITK as sitk  # noqa: N813

    shared = SharedMemory(memory - PROCESS_BYTES)

    def one(case: str) -> pd.DataFrame:
        images, label = files[case]
        with shared.taken(_memory(count_voxels(label), len(names))):
            read = [sitk.GetArrayFromImage(sitk.ReadImage(path)) for path in images]
            labels = sitk.GetArrayFromImage(sitk.ReadImage(label))
            return describe(np.stack(read), labels, names).assign(case=case)

    with ThreadPoolExecutor(max(1, threads)) as executor:
        return pd.concat(executor.map(one, files), ignore_index=True)


def compare(descriptions: pd.DataFrame) -> pd.DataFrame:
    """How unusual each channel of each case is, in its cohort and in its case.

    Args:
        descriptions: `case, channel, number, value`: those of `describe`, of all cases.

    Returns:
        A row for each case and channel: `case, channel, distance` (root mean square of
        the robust z of its numbers), `excess` (distance minus that of all numbers
        that the channel has no part in: what is left of the case without it), `number`
        (the most unusual one), `z`.
    """
    wide = descriptions.pivot(
        index="case", columns=["channel", "number"], values="value"
    ).sort_index(axis=1)
    centre = wide.median()
    spread = 1.4826 * (wide - centre).abs().median()
    z = (wide - centre) / spread.clip(lower=_SMALLEST_SPREAD)
    # What cannot be computed (a channel without contrast) is as unusual as can be, if
    # it can be computed in other cases.
    z = z.where(wide.notna() | wide.isna().all(), _LARGEST_Z)
    z = z.clip(-_LARGEST_Z, _LARGEST_Z)
    names = sorted(set(descriptions["channel"]))
    parts = []
    for name in names:
        own = _of(z, name)
        sizes = own.abs().to_numpy()
        worst = sizes.argmax(axis=1)
        distance = _several(own)
        rest = _beside(z, name, names, distance)
        parts.append(
            pd.DataFrame(
                {
                    "case": own.index,
                    "channel": name,
                    "distance": distance.to_numpy(),
                    "score": (distance / (1 + rest)).to_numpy(),
                    "number": [own.columns[i] for i in worst],
                    "z": own.to_numpy()[np.arange(len(own)), worst],
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values(["case", "channel"], ignore_index=True)


def _of(z: pd.DataFrame, channel: str, without: Sequence[str] = ()) -> pd.DataFrame:
    """The numbers of a channel that can be computed in some case."""
    own = pd.DataFrame(z.xs(channel, axis=1, level="channel"))
    own = own.drop(columns=list(without)).dropna(axis=1, how="all")
    # Without contrast in all cases (a channel of zeros, say) it is unlike none.
    return own if own.shape[1] else pd.DataFrame({_FLAT: 0.0}, index=own.index)


def _beside(
    z: pd.DataFrame, name: str, names: Sequence[str], distance: pd.Series
) -> pd.Series | float:
    """Distance of the next channel, by the numbers that this one has no part in; where
    there is no other, the channel's own in the median case."""
    rest = None
    for other in names:
        if other != name:
            own = _of(z, other, ["unexplained", f"with {name}"])
            if _FLAT not in own:
                found = _several(own)
                rest = found if rest is None else rest.where(rest >= found, found)
    return float(distance.median()) if rest is None else rest


def read_channels(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read `channels.tsv`; names stay text, whatever they look like."""
    text = pd.read_csv(path, sep="\t", dtype=str, na_filter=False)
    numbers = ["distance", "score", "z"]
    return text.assign(**text[numbers].replace("", "nan").astype(float))


def _several(z: pd.DataFrame) -> pd.Series:
    """Mean of the three largest sizes: one odd number alone is not yet much."""
    largest = -np.sort(-z.abs().to_numpy(), axis=1)[:, :3]
    return pd.Series(largest.mean(axis=1), index=z.index)
