"""What other programs make of a run: Dice by numpy, label maps by nnU-Net's command."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from .conftest import Checkout

RAW = "results/nnunet/raw/Dataset001_Cohort"
MATRIX = "results/similarity/matrix.tsv"


def voxels(path: Path) -> np.ndarray:
    image: Any = nib.load(path)
    return np.asarray(image.dataobj)


def predict_by_command(images: Path, model: Path, folder: Path, *more: str) -> None:
    """nnU-Net's `nnUNetv2_predict` on a CPU, for all cases of a folder of images.

    In one process: each more would import nnU-Net for itself.
    """
    with tempfile.TemporaryDirectory() as results:
        # Where nnU-Net's training would have left it.
        place = Path(results, "Dataset001_Cohort/nnUNetTrainer__nnUNetPlans__2d")
        place.parent.mkdir()
        place.symlink_to(model.resolve())
        subprocess.run(
            [
                str(Path(sys.executable).with_name("nnUNetv2_predict")),
                *("-i", str(images), "-o", str(folder), "-d", place.parent.name),
                *("-c", "2d", "-f", "all", "-device", "cpu"),
                *("-npp", "0", "-nps", "0", *more),
            ],
            check=True,
            capture_output=True,
            env={**os.environ, "nnUNet_results": results, "nnUNet_compile": "f"},
        )


def predicted_by_command(
    study: Checkout, model: str, case: str, folder: Path, *more: str
) -> np.ndarray:
    """The label map of nnU-Net's command for one case, without mirroring.

    `model` is a folder below results/models; the label map stays in `folder`.
    """
    images = folder.with_name(f"{folder.name}-images")
    images.mkdir()
    for image in study.path(RAW, "imagesTr").glob(f"{case}_*.nii.gz"):
        (images / image.name).symlink_to(image)
    model_folder = study.path("results/models", model)
    predict_by_command(images, model_folder, folder, "--disable_tta", *more)
    return voxels(folder / f"{case}.nii.gz")


def stored_matrix(study: Checkout) -> pd.DataFrame:
    return pd.read_csv(study.path(MATRIX), sep="\t", index_col=0)


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
