"""The 3-D configuration, up to the matrix."""

from pathlib import Path

import pandas as pd

from .conftest import Checkout, succeeded


def test_3d_fullres(tmp_path: Path) -> None:
    config = {
        "cohort": {
            **{"pool": 4, "train_cases": 3, "held_out": 0},
            "phantom": {
                "shape": [16, 32, 32],
                "defects": {
                    **{"swapped_labels": 0, "shifted_label": 0, "other_patient": 0}
                },
                "controls": {"no_enhancement": 0},
            },
        },
        "nnunet": {"configuration": "3d_fullres", "batch_size": 2},
        "training": {
            "base": {"epochs": 1, "iterations_per_epoch": 2},
            "finetune": {"epochs": 1, "iterations_per_epoch": 1},
        },
        "augmentation": {"copies": 1},
        "clusters": {"min_size": 1, "max_removed_share": 0.4},
    }
    checkout = Checkout(tmp_path, config)
    succeeded(checkout.run("matrix"))
    matrix = pd.read_csv(
        checkout.path("results/similarity/matrix.tsv"), sep="\t", index_col=0
    )
    assert matrix.shape == (3, 4)
    assert checkout.path(
        "results/nnunet/preprocessed/Dataset001_Cohort/nnUNetPlans_3d_fullres"
    ).is_dir()
