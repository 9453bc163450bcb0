"""The table of the cohort: who plays which part, and where the files are."""

import csv
import os
from pathlib import Path

from casesim.cohort.cases import Cohort
from casesim.files import atomic_path


def write_cohort(
    cohort: Cohort, raw_dir: str | os.PathLike[str], path: str | os.PathLike[str]
) -> None:
    """Write cohort.tsv: who plays which part, and where the imported files are."""
    raw = Path(raw_dir)
    columns = ["case", "image", "label", "role", "train_case", "source", "planted"]
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
                    (raw / "imagesTr" / f"{case.id}_0000.nii.gz").as_posix(),
                    (raw / "labelsTr" / f"{case.id}.nii.gz").as_posix(),
                    case.role,
                    str(case.train_case).lower(),
                    case.source,
                    case.planted,
                ]
            )
