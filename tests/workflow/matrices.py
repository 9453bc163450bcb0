"""The matrix once more, from the stored label maps alone: numpy and nibabel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from .conftest import Checkout

LABEL_MAPS = "results/nnunet/raw/Dataset001_Cohort/labelsTr"


def voxels(path: Path) -> np.ndarray:
    image: Any = nib.load(path)
    return np.asarray(image.dataobj)


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
    reference = voxels(study.path(f"{LABEL_MAPS}/{column}.nii.gz"))
    found = []
    for label in (1, 2, 3):
        ours, theirs = predicted == label, reference == label
        if total := int(ours.sum() + theirs.sum()):
            found.append(2 * int((ours & theirs).sum()) / total)
    return float(np.mean(found)) if found else float("nan")
