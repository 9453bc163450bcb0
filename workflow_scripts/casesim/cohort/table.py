"""The table of the cohort: who plays which part, and where the files are."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from casesim.cohort.cases import Case, Cohort
from casesim.files import atomic_path


def raw_images(raw_dir: str | os.PathLike[str], case: Case, channels: int) -> list[str]:
    """Where the channels of a case lie after the import, in nnU-Net's raw layout."""
    folder = Path(raw_dir, "imagesTr" if case.is_labelled else "imagesTs")
    names = channel_files([case.id], range(channels))
    return [(folder / f"{name}.nii.gz").as_posix() for name in names]


def channel_files(cases: Sequence[str], channels: Sequence[int]) -> list[str]:
    """Names of channel files as nnU-Net has them, `<case>_<channel>`."""
    return [f"{case}_{channel:04d}" for case in cases for channel in channels]


def raw_label(raw_dir: str | os.PathLike[str], case: Case) -> str | None:
    """Where the label map of a case lies after the import; None without one."""
    if not case.is_labelled:
        return None
    return Path(raw_dir, "labelsTr", f"{case.id}.nii.gz").as_posix()


def write_cohort(
    cohort: Cohort, raw_dir: str | os.PathLike[str], path: str | os.PathLike[str]
) -> None:
    """Write cohort.tsv: who plays which part, and where the imported files are.

    New cases have no label.
    """
    raw = Path(raw_dir)
    columns = ["case", "image", "label", "role", "train_case", "source", "planted"]
    columns.append("patient")
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        for case in cohort.cases:
            writer.writerow(
                [
                    case.id,
                    raw_images(raw, case, 1)[0],
                    raw_label(raw, case) or "",
                    case.role,
                    str(case.train_case).lower(),
                    case.source,
                    case.planted or case.spoilt,
                    case.patient or case.id,
                ]
            )
