"""Colour pictures in two dimensions, against nnU-Net's own command on the pictures."""

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from skimage import io

from casesim.cohort.phantom import patient

from .conftest import Checkout
from .datasets import describe, finish_study, five_phantoms
from .independent import predict_by_command

CONFIG: dict[str, Any] = {
    "regions": {},
    "nnunet": {"configuration": "2d", "batch_size": 4},
    "training": {
        "base": {"epochs": 2, "iterations_per_epoch": 15},
        "finetune": {"epochs": 1, "iterations_per_epoch": 2},
    },
    "augmentation": {"copies": 2},
    "clusters": {"min_size": 1, "max_removed_share": 0.4},
    "pruning": {"random_arms": 0},
}


def write_dataset(root: Path) -> None:
    """The middle slice of five phantoms: three sequences as colours, a label map."""
    cohort, phantom = five_phantoms((16, 64, 56), (3.0, 2.0, 2.0))
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    for case in cohort.cases:
        made = patient.generate(case.id, phantom, "", 0)
        z = int((made.label > 0).sum(axis=(1, 2)).argmax())
        slices = made.image[:3, z].astype(float)
        top = slices.max(axis=(1, 2), keepdims=True)
        colours = (255 * np.clip(slices / top, 0, 1)).astype(np.uint8)
        image = root / f"imagesTr/{case.id}_0000.png"
        io.imsave(image, colours.transpose(1, 2, 0), check_contrast=False)
        label = made.label[z].astype(np.uint8)
        io.imsave(root / f"labelsTr/{case.id}.png", label, check_contrast=False)
    describe(
        root,
        channel_names={"0": "red", "1": "green", "2": "blue"},
        labels={"background": 0, "edema": 1, "core": 2, "rim": 3},
        file_ending=".png",
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return finish_study(tmp_path_factory.mktemp("pictures"), write_dataset, CONFIG)


def pixels(path: Path) -> np.ndarray:
    """A prediction (y, x)."""
    image: Any = nib.load(path)
    assert image.shape[2] == 1
    return np.asarray(image.dataobj)[..., 0].T


def test_the_matrix_is_the_dice_against_the_pictures(study: Checkout) -> None:
    path = study.path("results/similarity/matrix.tsv")
    matrix = pd.read_csv(path, sep="\t", index_col=0)
    assert matrix.shape == (3, 4)
    for row in matrix.index:
        for column in matrix.columns:
            reference = io.imread(study.folder.parent / f"data/labelsTr/{column}.png")
            predicted = pixels(
                study.path(f"results/predictions/finetuned/{row}/{column}.nii.gz")
            )
            values = []
            for number in (1, 2, 3):
                both = ((predicted == number) & (reference == number)).sum()
                total = (predicted == number).sum() + (reference == number).sum()
                values.append(2 * both / total if total else np.nan)
            assert matrix.loc[row, column] == pytest.approx(np.nanmean(values))
    assert matrix.to_numpy().max() > 0.1


def test_nnunet_predicts_the_same_from_the_pictures(
    study: Checkout, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(study.path("results/models/base"), model)
    # The model as it would be had nnU-Net read the pictures itself.
    for name, changes in {
        "dataset": {
            "file_ending": ".png",
            "overwrite_image_reader_writer": "NaturalImage2DIO",
        },
        "plans": {"image_reader_writer": "NaturalImage2DIO"},
    }.items():
        path = model / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    images = study.folder.parent / "data/imagesTr"
    predict_by_command(images, model, tmp_path / "out")
    cases = pd.read_csv(study.path("results/cohort.tsv"), sep="\t")["case"]
    assert len(cases) == 5
    found = 0
    for case in cases:
        theirs = io.imread(tmp_path / f"out/{case}.png")
        ours = pixels(study.path(f"results/predictions/base/{case}.nii.gz"))
        assert (ours == theirs).mean() >= 0.999
        found += int((theirs > 0).sum())
    assert found > 0
