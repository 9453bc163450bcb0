"""Rules for label maps: their values, and where they lie."""

from collections.abc import Sequence

import numpy as np

from casesim.channels import zero_is_background
from casesim.cohort.cases import Case, Cohort
from casesim.cohort.checks.intensities import check_finite
from casesim.cohort.checks.report import Report
from casesim.cohort.checks.volumes import Channel, Volume
from casesim.cohort.numbers import shown


def check_label(label: Volume, case: Case, cohort: Cohort, report: Report) -> None:
    """Values that are no integers or not declared, and maps without any label."""
    check_finite(label.path, sum(label.not_finite), report)
    # In 32 bits, as nnU-Net reads them: 85 steps of 0.0117647 are 1.
    with np.errstate(over="ignore"):
        voxels = label.voxels.astype(np.float32)
    values, counts = np.unique(voxels[np.isfinite(voxels)], return_counts=True)
    found = dict(zip(values, counts.tolist(), strict=True))
    fractions = [value for value in found if value != int(value)]
    if fractions:
        listed = ", ".join(shown(value) for value in fractions[:5])
        report.error(
            f"{label.path} has {len(fractions)} label values that are no integers: "
            f"{listed}{', …' if len(fractions) > 5 else ''}.",
            "Interpolation does this: resample label maps with nearest neighbour.",
        )
    whole = {int(value): n for value, n in found.items() if value == int(value)}
    strange = {v: n for v, n in whole.items() if v not in cohort.label_map}
    if strange:
        listed = ", ".join(f"{v} ({n} voxels)" for v, n in list(strange.items())[:10])
        declared = ", ".join(map(str, sorted(cohort.label_map)))
        report.error(
            f"{label.path} has label values outside the declared ones ({declared}): "
            f"{listed}.",
            _declare_labels(case, set(whole)),
        )
    if not set(found) - {0, cohort.targets.ignore}:
        report.error(
            f"{label.path} is an empty label map: all background.",
            "Take the case out, or draw its lesion: as a pool case it teaches a model "
            "to find nothing, and as a held-out case it has no Dice.",
        )


def _declare_labels(case: Case, found: set[int]) -> str:
    if case.source != "brats":
        return "Correct the label map, or declare the label in dataset.json."
    core = "{edema: [2], non-enhancing_tumor: [1], enhancing_tumour: "
    if 3 in found:
        cavity = "[3], resection_cavity: [4]}" if 4 in found else "[3]}"
        return (
            "From BraTS 2023 on the enhancing tumour is 3 (and in 2024 a resection "
            f"cavity 4): set cohort.brats.labels: {core}{cavity}"
        )
    if 4 in found:
        return (
            "Up to BraTS 2022 the enhancing tumour is 4: set cohort.brats.labels: "
            f"{core}[4]}}"
        )
    return "Correct the label map, or give the label a name in cohort.brats.labels."


def check_brain(
    channels: Sequence[Channel],
    label: Volume,
    report: Report,
    ignore: int | None = None,
) -> None:
    """Labels where all channels are 0, unless 0 is a tissue (CT) or they are
    ignored."""
    if not zero_is_background(channel.name for channel in channels):
        return
    if any(channel.voxels.shape != label.voxels.shape for channel in channels):
        return
    outside = (label.voxels != 0) & (label.voxels != ignore)
    for channel in channels:
        outside &= channel.voxels == 0
    count = int(np.count_nonzero(outside))
    if count and any(np.any(channel.voxels) for channel in channels):
        report.warning(
            f"{label.path} labels {count} voxels outside the brain (all channels 0).",
            "Look whether the label map belongs to this image, and is not shifted.",
        )
