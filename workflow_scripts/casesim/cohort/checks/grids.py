"""Rules for shape and place in space: all files of a case lie on one grid."""

from collections.abc import Sequence

import numpy as np

from casesim.cohort.checks.report import Report
from casesim.cohort.checks.volumes import Channel, Volume
from casesim.cohort.numbers import told_apart

# Relative; nnU-Net's reader refuses channels whose spacings differ by more.
SPACING_TOLERANCE = 1e-5

# In voxels: further apart, a label map is visibly beside its image at some edge.
ORIGIN_TOLERANCE = 0.01

# In direction cosines: 0.0001 turns a corner 240 voxels away by 0.02 voxels.
DIRECTION_TOLERANCE = 1e-4

_SAME_GRID = (
    "If the voxels do match, copy the header (label.CopyInformation(image) in "
    "SimpleITK); otherwise resample it onto the grid of the first channel."
)


def check_grids(
    channels: Sequence[Channel], label: Volume | None, report: Report
) -> None:
    """Compare shape and place in space of all files with those of the first channel."""
    first = channels[0].volume
    others = dict.fromkeys(c.volume.path for c in channels[1:])
    volumes = {c.volume.path: c.volume for c in channels}
    compared = [volumes[path] for path in others if path != first.path]
    for volume in [*compared, *([label] if label else [])]:
        differences = _grid_differences(first, volume)
        if differences:
            report.error(
                f"{volume.path} does not lie on the grid of {first.path}: "
                f"{'; '.join(differences)}.",
                _SAME_GRID,
            )


def _grid_differences(first: Volume, other: Volume) -> list[str]:
    differences = []

    def differ(what: str, a: Sequence[float], b: Sequence[float]) -> None:
        expected, found = told_apart(a, b)
        differences.append(f"{what} {found} instead of {expected}")

    if first.voxels.shape[:3] != other.voxels.shape[:3]:
        differ("shape", first.voxels.shape[:3], other.voxels.shape[:3])
    if not np.allclose(first.spacing, other.spacing, SPACING_TOLERANCE, 0):
        differ("spacing (mm)", first.spacing, other.spacing)
    tolerance = ORIGIN_TOLERANCE * min(first.spacing)
    if not np.allclose(first.origin, other.origin, 0, tolerance):
        differ("origin (mm)", first.origin, other.origin)
    if not np.allclose(first.direction, other.direction, 0, DIRECTION_TOLERANCE):
        differ("direction", first.direction, other.direction)
    return differences
