"""Names of virtual patients, defects and controls, and who gets which."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from casesim.errors import UserError

CHANNEL_NAMES = ("FLAIR", "T1w", "T1gd", "T2w")
LABELS = {
    "background": 0,
    "edema": 1,
    "non-enhancing_tumor": 2,
    "enhancing_tumour": 3,
}

LABEL_DEFECTS = (
    "swapped_labels",
    "shifted_label",
    "other_patient",
    "over_segmentation",
    "missed_lesion",
)
"""The image is right, the label map is not."""

IMAGE_DEFECTS = ("corrupted_channel",)
"""The label map is right, one channel of the image is not."""

CONTROLS = (
    "no_enhancement",
    "multifocal",
    "infratentorial",
    "small_lesion",
    "odd_scanner",
)
"""Unusual, but image and label map are right: not to be called bad."""


def case_ids(number: int) -> list[str]:
    """Names of the first ``number`` virtual patients: ``phantom_001``, ..."""
    return [f"phantom_{index:03d}" for index in range(1, number + 1)]


def assignments(
    phantom_config: Mapping[str, Any], train_cases: Iterable[str], seed: int
) -> dict[str, str]:
    """Which train case gets which planted defect or control.

    Args:
        phantom_config: ``cohort.phantom``; ``defects`` and ``controls`` map names to
            numbers of cases.
        train_cases: ids of the train cases, in any order.
        seed: ``cohort.seed``.

    Returns:
        Case id to name, for the cases that have one; one name per case. The same
        whatever the order of ``train_cases``.

    Raises:
        UserError: an unknown name, a negative number, or more planted cases than
            train cases.
    """
    known = {"defects": LABEL_DEFECTS + IMAGE_DEFECTS, "controls": CONTROLS}
    wanted: list[str] = []
    for kind, names in known.items():
        numbers = phantom_config.get(kind) or {}
        if unknown := sorted(set(numbers) - set(names)):
            raise UserError(
                f"cohort.phantom.{kind} in the config names {', '.join(unknown)}, "
                f"which does not exist. Choose from: {', '.join(names)}."
            )
        for name in names:
            number = int(numbers.get(name, 0))
            if number < 0:
                raise UserError(
                    f"cohort.phantom.{kind}.{name} in the config is {number}; "
                    "give the number of cases, 0 or more."
                )
            wanted += [name] * number
    cases = sorted(set(train_cases))
    if len(wanted) > len(cases):
        raise UserError(
            f"cohort.phantom in the config plants {len(wanted)} defects and controls, "
            f"but there are only {len(cases)} train cases. Lower the numbers under "
            "defects and controls, or raise cohort.train_cases."
        )
    cases.sort(key=lambda case: stream_digest(seed, case, "planted"))
    return dict(zip(cases, wanted, strict=False))


def stream_digest(seed: int, case_id: str, stream: str) -> bytes:
    """32 bytes that depend on seed, case and purpose alone."""
    return hashlib.sha256(f"{seed}/{stream}/{case_id}".encode()).digest()
