"""Rules for the values of the images."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from casesim.cohort.checks.report import Report
from casesim.cohort.checks.volumes import Channel
from casesim.cohort.numbers import shown


def check_images(channels: Sequence[Channel], complete: bool, report: Report) -> None:
    """Values that are no numbers, and channels that hold nothing.

    `complete` says that all channels of the case could be read.
    """
    for channel in channels:
        check_finite(channel.place, channel.not_finite, report)
    constant = [c for c in channels if is_constant(c.voxels)]
    if complete and len(constant) == len(channels):
        files = ", ".join(dict.fromkeys(c.volume.path for c in channels))
        report.error(
            f"No brain voxels: every channel is constant in {files}.",
            "Export the images again: there is nothing in them.",
        )
        return
    for channel in constant:
        report.warning(
            f"{channel.place} is constant: it has the value "
            f"{shown(channel.voxels.flat[0])} everywhere.",
            "Replace the channel if it should hold an image.",
        )


def is_constant(voxels: NDArray[Any]) -> bool:
    """Whether all voxels have one value (or there is none)."""
    return voxels.size == 0 or bool(voxels.min() == voxels.max())


def check_finite(place: str, strange: int, report: Report) -> None:
    """Report `strange` voxels of what lies at `place` that are NaN or infinite."""
    if strange:
        report.error(
            f"{place} has {strange} NaN or infinite voxels.",
            "Replace them (outside the body by the value of the background: 0, or air "
            "in CT), or export the image again.",
        )
