"""All rules for one case, and what is needed to compare it with others."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from casesim.channels import told_apart
from casesim.cohort.cases import Case, Cohort
from casesim.cohort.checks.grids import check_grids
from casesim.cohort.checks.intensities import check_images, is_constant
from casesim.cohort.checks.labels import check_brain, check_label
from casesim.cohort.checks.network_input import check_network_input
from casesim.cohort.checks.report import Report
from casesim.cohort.checks.volumes import Channel, Volume, find_channels, load
from casesim.cohort.problem import Problem


@dataclass(frozen=True)
class Digest:
    """What is needed of a case to compare it with others.

    One digest for each channel that is not constant, by channel name; the digest of the
    label map (empty without one), its number of labelled voxels and the values in it,
    as the file has them; the spacing in mm and the shape in voxels (x, y, z).
    """

    channels: dict[str, str]
    label: str
    label_voxels: int
    label_values: frozenset[int]
    spacing: tuple[float, ...]
    shape: tuple[int, ...]


def check_case(case: Case, cohort: Cohort) -> tuple[list[Problem], Digest | None]:
    """Read all files of one case, and list what is wrong with them.

    The digest is None where a file is missing or unreadable, and for phantoms, which
    have no files yet and are right by construction.
    """
    report = Report(case.id)
    if case.source == "phantom":
        return report.problems, None
    images = [load(path, report) for path in case.images]
    label = load(case.label, report) if case.label else None
    channels = find_channels(case, images, cohort.channel_names, report)
    complete = len(channels) == len(cohort.channel_names)
    check_images(channels, complete, report)
    if label and label.voxels.ndim != 3:
        report.error(
            f"{label.path} has {label.voxels.ndim} dimensions {label.voxels.shape}.",
            "A label map must be 3-D: save it as one volume (a picture in grey values, "
            "without a palette).",
        )
        label = None
    if label:
        check_label(label, case, cohort, report)
    if channels:
        check_grids(channels, label, report)
    if not complete or (case.is_labelled and not label):
        return report.problems, None
    check_network_input(channels, report)
    if label:
        check_brain(channels, label, report, cohort.targets.ignore)
    return report.problems, _digest(channels, label)


def _digest(channels: Sequence[Channel], label: Volume | None) -> Digest:
    names = told_apart([channel.name for channel in channels])
    return Digest(
        {
            name: _hash(channel.voxels, np.float32)
            for name, channel in zip(names, channels, strict=True)
            if not is_constant(channel.voxels)
        },
        _hash(label.voxels, np.uint8) if label else "",
        int(np.count_nonzero(label.voxels)) if label else 0,
        frozenset(map(int, np.unique(label.voxels))) if label else frozenset(),
        channels[0].volume.spacing,
        channels[0].voxels.shape,
    )


def _hash(voxels: NDArray[Any], dtype: type) -> str:
    """A hash of shape and values, whatever type they are stored as."""
    with np.errstate(invalid="ignore", over="ignore"):
        values: NDArray[Any] = np.asfortranarray(voxels, dtype=dtype)
    digest = hashlib.sha256(repr(voxels.shape).encode())
    digest.update(values.T.data)
    return digest.hexdigest()
