"""Rules for what the network will get: values in 32 bits, after normalisation.

nnU-Net normalises each channel of a case by itself (`ZScoreNormalization` and others,
chosen by the channel's name). One value far beyond all others survives every rule about
single voxels, and leaves an image without contrast; larger ones end in NaN.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casesim import channels as kinds
from casesim.cohort.checks.intensities import is_constant
from casesim.cohort.checks.report import Report
from casesim.cohort.checks.volumes import Channel
from casesim.cohort.numbers import shown

# Between the lowest and the highest half per cent of the voxels, in what the
# normalisation divides by; real images have 3 to 6.
LEAST_SPREAD = 0.05
# nnU-Net normalises within the mask of what is not 0 where that saves this much.
MASKED_SHARE = 0.75
# Percentiles are taken of at most about so many voxels.
SAMPLED_VOXELS = 10**6
# What nnU-Net divides by at least.
SMALLEST_SCALE = 1e-8
# What a network copes with where nothing is normalised.
LARGEST_RAW_VALUE = 100.0


def check_network_input(channels: Sequence[Channel], report: Report) -> None:
    """Channels that the network would get without contrast, or not as numbers at all.

    `channels` are all of a case's, on one grid.
    """
    shape = channels[0].voxels.shape
    if any(channel.voxels.shape != shape for channel in channels):
        return
    inside = np.zeros(shape, bool)
    for channel in channels:
        inside |= channel.voxels != 0
    box = tuple(slice(*_extent(inside, axis)) for axis in range(inside.ndim))
    inside = inside[box]
    masked = np.count_nonzero(inside) < MASKED_SHARE * inside.size
    for channel in channels:
        _check_channel(channel, box, inside if masked else None, report)


def _extent(inside: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    others = tuple({*range(inside.ndim)} - {axis})
    where = np.flatnonzero(inside.any(axis=others))
    return (int(where[0]), int(where[-1]) + 1) if where.size else (0, 0)


def _check_channel(
    channel: Channel,
    box: tuple[slice, ...],
    inside: NDArray[np.bool_] | None,
    report: Report,
) -> None:
    kind = kinds.normalisation(channel.name)
    volume = channel.voxels[box]
    with np.errstate(over="ignore", invalid="ignore"):
        volume = volume.astype(np.float32)
        values = volume[inside] if inside is not None else volume.ravel()
        if values.size == 0:
            return
        low, high = values.min(), values.max()
        if not np.isfinite([low, high]).all():
            report.error(
                f"{channel.place} holds values that 32-bit numbers cannot: "
                f"{shown(channel.voxels.min())} to {shown(channel.voxels.max())}.",
                "Replace them by what they stand for: outside the body by the value "
                "of the background.",
            )
            return
        if low == high:
            _check_constant(channel, box, inside, report)
            return
        if kind == "rgb_to_0_1" and (low < 0 or high > 255):
            report.error(
                f"{channel.place} has values from {shown(low)} to {shown(high)}, but "
                "the channel's name says that they are colours from 0 to 255.",
                "Give the channel another name in dataset.json.",
            )
        if kind == "nonorm" and max(-low, high) > LARGEST_RAW_VALUE:
            report.warning(
                f"{channel.place} has values from {shown(low)} to {shown(high)}, and "
                "by the channel's name nothing normalises them.",
                "Give the channel another name in dataset.json, or scale its values.",
            )
        if kind not in (kinds.Z_SCORE, "rescale_to_0_1"):
            return
        scale = values.std() if kind == kinds.Z_SCORE else high - low
        if scale < SMALLEST_SCALE:
            report.error(
                f"{channel.place} differs by {shown(high - low)} only: too little to "
                f"be normalised (nnU-Net divides by {SMALLEST_SCALE:g} at least), so "
                "that the image has no contrast left.",
                "Scale its values, so that they span 1 or more.",
            )
            return
        if not np.isfinite([values.mean(), scale]).all():
            report.error(
                f"{channel.place} has {_extreme(channel, values, 0)}: too large "
                "to be normalised, since mean or spread of the image are beyond 32-bit "
                "numbers.",
                "Replace that value: outside the body by that of the background, "
                "inside by that of the voxels around it.",
            )
            return
    # Without a mask the background, whatever its value, is no contrast.
    common = np.median(_faces(volume)) if inside is None else None
    _check_spread(channel, values, common, float(scale), report)


def _check_constant(
    channel: Channel,
    box: tuple[slice, ...],
    inside: NDArray[np.bool_] | None,
    report: Report,
) -> None:
    """Report what differs in the file, or in the whole image, and not for a network."""
    stored = channel.voxels[box]
    values = stored[inside] if inside is not None else stored
    if not is_constant(values):
        report.error(
            f"{channel.place} has values from {shown(values.min())} to "
            f"{shown(values.max())}, which are all the same as 32-bit numbers.",
            "Scale its values, so that they span 1 or more.",
        )
    elif inside is not None and not is_constant(channel.voxels):
        report.warning(
            f"{channel.place} has the value {shown(values.flat[0])} wherever there is "
            "an image: normalised, nothing of it is left.",
            "Replace the channel if it should hold an image.",
        )


def _faces(volume: NDArray[Any]) -> NDArray[Any]:
    """The voxels on the six faces of a volume."""
    faces = [np.take(volume, (0, -1), axis).ravel() for axis in range(volume.ndim)]
    return np.concatenate(faces)


def _check_spread(
    channel: Channel,
    values: NDArray[np.float32],
    common: Any,
    scale: float,
    report: Report,
) -> None:
    """Report a value that leaves all others alike once `scale` has divided them."""
    others = values[:: 1 + values.size // SAMPLED_VOXELS]
    if common is not None:
        others = others[others != common]
    if others.size == 0 or others.min() == others.max():
        return
    low, high = np.percentile(others, (0.5, 99.5)).astype(np.float32)
    spread = (float(high) - float(low)) / scale
    if spread >= LEAST_SPREAD:
        return
    report.error(
        f"{channel.place} has {_extreme(channel, values, low / 2 + high / 2)}, while "
        f"nearly all others lie between {shown(low)} and {shown(high)}: normalised, "
        f"the image has no contrast left ({spread:.2g} standard deviations).",
        "Replace that value: outside the body by that of the background, inside by "
        "that of the voxels around it.",
    )


def _extreme(channel: Channel, values: NDArray[np.float32], middle: Any) -> str:
    """The value farthest from the middle, and where it is if in one voxel only."""
    with np.errstate(over="ignore"):
        odd = values[np.argmax(np.abs(values - middle))]
        count = int(np.count_nonzero(values == odd))
        if count > 1:
            return f"the value {shown(odd)} in {count} voxels"
        index = np.argwhere(channel.voxels.astype(np.float32) == odd)[0]
    return f"the value {shown(odd)} in one voxel (index {', '.join(map(str, index))})"
