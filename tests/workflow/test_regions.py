"""A data set with regions and an ignored label, against nnU-Net's own commands."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from casesim.cohort.importing import import_case

from .conftest import Checkout
from .datasets import describe, finish_study, five_phantoms
from .independent import predict_by_command

REGIONS = {"whole_tumor": [1, 2, 3], "tumor_core": [2, 3], "enhancing_tumor": [3]}
IGNORE = 4
CONFIG: dict[str, Any] = {
    "regions": {"edema": [1], "tumor_core": [2, 3]},
    "similarity": {"region": "tumor_core"},
    "training": {
        "base": {"epochs": 3, "iterations_per_epoch": 10},
        "finetune": {"epochs": 1, "iterations_per_epoch": 3},
    },
    "augmentation": {"copies": 1},
    "clusters": {"min_size": 1, "max_removed_share": 0.4},
    "pruning": {"random_arms": 0},
}


def write_dataset(root: Path) -> None:
    """Five phantoms in nnU-Net's raw format; the top of each is not labelled."""
    cohort, phantom = five_phantoms((16, 40, 40), (3.0, 3.0, 3.0))
    for case in cohort.cases:
        images = [root / f"imagesTr/{case.id}_{i:04d}.nii.gz" for i in range(4)]
        label = root / f"labelsTr/{case.id}.nii.gz"
        import_case(case, cohort.label_map, images, label, phantom, 0)
        image: Any = nib.load(label)
        voxels = np.asarray(image.dataobj).astype(np.uint8)
        voxels[:, :, 9:] = IGNORE
        nib.save(nib.Nifti1Image(voxels, image.affine, image.header), label)
    describe(
        root,
        channel_names=dict(enumerate(cohort.channel_names)),
        labels={"background": 0, **REGIONS, "ignore": IGNORE},
        regions_class_order=[1, 2, 3],
        file_ending=".nii.gz",
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return finish_study(tmp_path_factory.mktemp("regions"), write_dataset, CONFIG)


def voxels(path: Path) -> np.ndarray:
    image: Any = nib.load(path)
    return np.asarray(image.dataobj)


def dice(prediction: np.ndarray, reference: np.ndarray, numbers: list[int]) -> float:
    """By masks, in voxels that are not ignored."""
    counted = reference != IGNORE
    predicted = np.isin(prediction, numbers)[counted]
    referred = np.isin(reference, numbers)[counted]
    total = predicted.sum() + referred.sum()
    return 2 * (predicted & referred).sum() / total if total else np.nan


def label_map(study: Checkout, case: str) -> Path:
    return study.path(f"results/nnunet/raw/Dataset001_Cohort/labelsTr/{case}.nii.gz")


def test_the_matrix_is_the_dice_of_its_label_maps(study: Checkout) -> None:
    def matrix(name: str) -> pd.DataFrame:
        path = study.path(f"results/similarity/{name}.tsv")
        return pd.read_csv(path, sep="\t", index_col=0)

    mean = matrix("matrix")
    assert mean.shape == (3, 4)
    groups = {**REGIONS, "edema": [1]}
    for row in mean.index:
        for column in mean.columns:
            path = study.path(f"results/predictions/finetuned/{row}/{column}.nii.gz")
            prediction = voxels(path)
            reference = voxels(label_map(study, column))
            assert (reference == IGNORE).any()
            values = {n: dice(prediction, reference, m) for n, m in groups.items()}
            for name, value in values.items():
                found = matrix(f"matrix_{name}").loc[row, column]
                assert found == pytest.approx(value, nan_ok=True)
            expected = np.nanmean([values[name] for name in REGIONS])
            assert mean.loc[row, column] == pytest.approx(expected)
            assert IGNORE not in prediction
    # The networks have found something, or all of this would mean little.
    assert matrix("matrix_whole_tumor").to_numpy().max() > 0.2


def run(study: Checkout, *command: str) -> None:
    program = Path(sys.executable).with_name(command[0])
    environment = {**os.environ, "nnUNet_compile": "f"}
    arguments = [str(program), *command[1:]]
    subprocess.run(arguments, check=True, capture_output=True, env=environment)


def test_nnunet_predicts_and_evaluates_the_same(
    study: Checkout, tmp_path: Path
) -> None:
    model = study.path("results/models/base")
    cohort = pd.read_csv(study.path("results/cohort.tsv"), sep="\t")
    cases = [str(case) for case in cohort["case"]][:2]
    (tmp_path / "in").mkdir()
    (tmp_path / "reference").mkdir()
    raw = study.path("results/nnunet/raw/Dataset001_Cohort/imagesTr")
    for case in cases:
        for image in raw.glob(f"{case}_*.nii.gz"):
            (tmp_path / "in" / image.name).symlink_to(image)
        reference = tmp_path / "reference" / f"{case}.nii.gz"
        reference.symlink_to(label_map(study, case))
    predict_by_command(tmp_path / "in", model, tmp_path / "out")
    for case in cases:
        ours = voxels(study.path(f"results/predictions/base/{case}.nii.gz"))
        theirs = voxels(tmp_path / f"out/{case}.nii.gz")
        assert (ours == theirs).mean() >= 0.999
        assert len(np.unique(theirs)) > 1

    for case in cases:  # the same label maps, so that counts must be the same
        source = study.path(f"results/predictions/base/{case}.nii.gz")
        (tmp_path / f"out/{case}.nii.gz").write_bytes(source.read_bytes())
    run(
        study,
        *("nnUNetv2_evaluate_folder", str(tmp_path / "reference")),
        *(str(tmp_path / "out"), "-djfile", str(model / "dataset.json")),
        *("-pfile", str(model / "plans.json"), "-np", "1"),
    )
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert len(summary["metric_per_case"]) == len(cases)
    for result in summary["metric_per_case"]:
        case = Path(result["prediction_file"]).name.removesuffix(".nii.gz")
        score = json.loads(study.path(f"results/scores/base/{case}.json").read_text())
        assert list(score["labels"]) == list(REGIONS)
        for ours, theirs in zip(
            score["labels"].values(), result["metrics"].values(), strict=True
        ):
            for key, value in ours.items():
                assert value == theirs[key if key.startswith("n_") else key.upper()]


def test_the_pictures_name_what_is_in_the_label_maps(study: Checkout) -> None:
    for picture in ("cohort", "pruning/overlays"):
        text = study.path(f"results/{picture}.svg").read_text()
        for name in ("label 1", "label 2", "enhancing tumor", "ignore"):
            assert f"<!-- {name} -->" in text
