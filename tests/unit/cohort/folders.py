"""Data sets as folders of empty files, and the config that reads them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from casesim.cohort.cases import Cohort

ROOT = Path(__file__).parents[3]


SHARED = Path(os.environ.get("CASESIM_SHARED", ROOT.parent / "shared"))


needs_patients = pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason=f"no real patients in {SHARED / 'data'}"
)


MSD_JSON = {
    "modality": {"0": "FLAIR", "1": "T1w", "2": "T1gd", "3": "T2w"},
    "labels": {
        "0": "background",
        "1": "edema",
        "2": "non-enhancing tumor",
        "3": "enhancing tumour",
    },
}


NNUNET_JSON = {
    "channel_names": {"0": "FLAIR", "1": "T1gd"},
    "labels": {"background": 0, "edema": 1, "core": 2},
    "file_ending": ".nii.gz",
}


OLD_BRATS = {"edema": [2], "non-enhancing_tumor": [1], "enhancing_tumour": [4]}


PHANTOM = {"shape": [16, 24, 24], "spacing": [6.0, 6.0, 5.0], "scanners": 2}


def config(source: str, path: Path | None = None, **keys: Any) -> dict[str, Any]:
    return {
        "source": source,
        "path": None if path is None else str(path),
        "pool": 2,
        "train_cases": 1,
        "held_out": 1,
        "seed": 0,
        "brats": {"labels": OLD_BRATS},
        "phantom": PHANTOM,
        **keys,
    }


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def msd_folder(root: Path, ids: list[str], **changes: Any) -> Path:
    for case in ids:
        touch(root / f"imagesTr/{case}.nii.gz", root / f"labelsTr/{case}.nii.gz")
    (root / "dataset.json").write_text(json.dumps({**MSD_JSON, **changes}))
    return root


def nnunet_folder(root: Path, ids: list[str], **changes: Any) -> Path:
    for case in ids:
        touch(
            root / f"imagesTr/{case}_0000.nii.gz",
            root / f"imagesTr/{case}_0001.nii.gz",
            root / f"labelsTr/{case}.nii.gz",
        )
    root.mkdir(exist_ok=True)
    (root / "dataset.json").write_text(json.dumps({**NNUNET_JSON, **changes}))
    return root


def texts(cohort: Cohort) -> str:
    return "\n".join(f"{p.case} {p.severity} {p.problem}" for p in cohort.problems)
