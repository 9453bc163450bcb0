"""What other programs make of a run: Dice by numpy, label maps by nnU-Net's command."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from .conftest import Checkout

RAW = "results/nnunet/raw/Dataset001_Cohort"


def voxels(path: Path) -> np.ndarray:
    image: Any = nib.load(path)
    return np.asarray(image.dataobj)


def predicted_by_command(
    study: Checkout, model: str, case: str, folder: Path, *more: str
) -> np.ndarray:
    """The label map of `nnUNetv2_predict_from_modelfolder`, without mirroring.

    `model` is a folder below results/models; the label map stays in `folder`.
    """
    images = folder.with_name(f"{folder.name}-images")
    images.mkdir()
    for image in study.path(RAW, "imagesTr").glob(f"{case}_*.nii.gz"):
        (images / image.name).symlink_to(image)
    program = Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder")
    subprocess.run(
        [
            str(program),
            *("-i", str(images), "-o", str(folder), "-f", "all"),
            *("-m", str(study.path("results/models", model))),
            *("-device", "cpu", "-npp", "1", "-nps", "1", "--disable_tta", *more),
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "nnUNet_compile": "f"},
    )
    return voxels(folder / f"{case}.nii.gz")


def stored_matrix(study: Checkout) -> pd.DataFrame:
    path = study.path("results/similarity/matrix.tsv")
    return pd.read_csv(path, sep="\t", index_col=0)


def recomputed(
    study: Checkout, rows: Sequence[str], columns: Sequence[str]
) -> pd.DataFrame:
    """Mean Dice over the labels 1, 2 and 3, those left out that neither map has."""
    values = {column: [_cell(study, row, column) for row in rows] for column in columns}
    return pd.DataFrame(values, index=pd.Index(rows, name="case"))


def _cell(study: Checkout, row: str, column: str) -> float:
    predicted = voxels(
        study.path(f"results/predictions/finetuned/{row}/{column}.nii.gz")
    )
    reference = voxels(study.path(RAW, f"labelsTr/{column}.nii.gz"))
    found = []
    for label in (1, 2, 3):
        ours, theirs = predicted == label, reference == label
        if total := int(ours.sum() + theirs.sum()):
            found.append(2 * int((ours & theirs).sum()) / total)
    return float(np.mean(found)) if found else float("nan")
