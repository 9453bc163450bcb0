"""Look, correct, run again: the result is that of a run from nothing."""

import shutil
from pathlib import Path
from typing import Any

import SimpleITK

from .conftest import Checkout, succeeded

RAW = "results/nnunet/raw/Dataset001_Cohort"
RESULTS = [
    *("similarity/matrix.tsv", "similarity/matrix_WT.tsv", "similarity/clusters.tsv"),
    *("pruning/comparison.tsv", "pruning/summary.json", "cohort.tsv"),
]
TARGETS = [f"results/{name}" for name in RESULTS]
POOL = [f"phantom_00{number}" for number in range(1, 4)]
ONCE = {"epochs": 1, "iterations_per_epoch": 3}
CONFIG: dict[str, Any] = {
    "cohort": {
        "source": "nnunet",
        "path": "data",
        "pool": POOL,
        "train_cases": POOL,
        "held_out": ["phantom_006"],
    },
    "training": {"base": ONCE, "finetune": ONCE},
    "augmentation": {"copies": 1},
    "clusters": {"min_size": 1, "max_removed_share": 0.4},
    "pruning": {"arms": ["worst_cluster"], "random_arms": 0},
}


def study_of(finished: Checkout, folder: Path) -> Checkout:
    """The phantoms of another study as a user's labelled cases."""
    checkout = Checkout(folder, CONFIG)
    shutil.copytree(finished.path(RAW), checkout.path("data"))
    return checkout


def correct(checkout: Checkout) -> None:
    """Half of a lesion is no lesion; the file looks older than the one before."""
    path = checkout.path("data/labelsTr/phantom_001.nii.gz")
    label = SimpleITK.ReadImage(str(path))
    voxels = SimpleITK.GetArrayFromImage(label)
    voxels[:, : voxels.shape[1] // 2] = 0
    corrected = SimpleITK.GetImageFromArray(voxels)
    corrected.CopyInformation(label)
    copy = path.with_name("corrected.nii.gz")
    SimpleITK.WriteImage(corrected, str(copy))
    shutil.copystat(checkout.path("Snakefile"), copy)
    copy.replace(path)


def results(checkout: Checkout) -> dict[str, bytes]:
    return {name: checkout.path("results", name).read_bytes() for name in RESULTS}


def test_a_corrected_label_counts_at_the_next_start(
    finished: Checkout, tmp_path: Path
) -> None:
    looked_at = study_of(finished, tmp_path / "corrected")
    succeeded(looked_at.run(*TARGETS))
    before = results(looked_at)
    correct(looked_at)
    output = succeeded(looked_at.run(*TARGETS))
    assert "data/labelsTr/phantom_001.nii.gz" in output
    after = results(looked_at)
    assert after["similarity/matrix.tsv"] != before["similarity/matrix.tsv"]

    from_nothing = study_of(finished, tmp_path / "from_nothing")
    correct(from_nothing)
    succeeded(from_nothing.run(*TARGETS))
    assert after == results(from_nothing)
