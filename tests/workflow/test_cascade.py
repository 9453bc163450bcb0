"""The cascade, up to the matrix and a retrained model, against nnU-Net's commands."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import Checkout, succeeded
from .independent import (
    MATRIX,
    predicted_by_command,
    recomputed,
    stored_matrix,
    voxels,
)

CONFIG: dict[str, Any] = {
    "cohort": {
        **{"pool": 3, "train_cases": 3, "held_out": 0},
        "phantom": {
            # Large for a GPU of 10 MB, for which nnU-Net plans two stages.
            **{"shape": [24, 44, 44], "spacing": [3.0, 3.0, 3.0]},
            "defects": {
                **{"swapped_labels": 0, "shifted_label": 0, "other_patient": 0}
            },
            "controls": {"no_enhancement": 0},
        },
    },
    "nnunet": {
        "configuration": "3d_cascade_fullres",
        **{"gpu_memory_target_gb": 0.01, "batch_size": 2},
    },
    "training": {
        "base": {"epochs": 2, "iterations_per_epoch": 12},
        "finetune": {"epochs": 1, "iterations_per_epoch": 3},
    },
    "augmentation": {"copies": 1},
    "inference": {"mirroring": False},
    "clusters": {"min_size": 1, "max_removed_share": 0.4},
}
RETRAINED = "results/scores/retrained/worst_cluster/phantom_001.json"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("cascade"), CONFIG)
    succeeded(checkout.run(MATRIX, RETRAINED))
    return checkout


def test_the_matrix_is_the_dice_of_its_label_maps(study: Checkout) -> None:
    matrix = stored_matrix(study)
    assert matrix.shape == (3, 3)
    expected = recomputed(study, list(matrix.index), list(matrix.columns))
    np.testing.assert_allclose(matrix, expected, rtol=1e-6)
    # The networks have found something, or all of this would mean little.
    assert matrix.to_numpy().max() > 0.1


def test_every_model_is_a_pair(study: Checkout) -> None:
    models = study.path("results/models")
    names = ["base", "finetuned/phantom_001", "retrained/worst_cluster"]
    for name in names:
        for part in (models / name, models / name / "3d_lowres"):
            assert (part / "fold_all/checkpoint_final.pth").is_file()
        # What the second stage was trained on is made again if it is wanted again.
        assert not (models / name / "3d_lowres/predicted_next_stage").exists()
    # The copies of both stages have served.
    assert not list(study.path("results/augmented").rglob("*.b2nd"))
    plan = study.run("-n", MATRIX, RETRAINED)
    assert "Nothing to be done" in succeeded(plan)


def test_nnunet_predicts_the_same(study: Checkout, tmp_path: Path) -> None:
    model, case = "finetuned/phantom_001", "phantom_002"
    first = predicted_by_command(study, f"{model}/3d_lowres", case, tmp_path / "first")
    theirs = predicted_by_command(
        *(study, model, case, tmp_path / "second"),
        *("-prev_stage_predictions", str(tmp_path / "first")),
    )
    ours = voxels(study.path(f"results/predictions/{model}/{case}.nii.gz"))
    assert len(np.unique(theirs)) > 1
    assert (ours == theirs).mean() >= 0.999
    # The second stage has something to say of its own.
    assert (first != theirs).any()
