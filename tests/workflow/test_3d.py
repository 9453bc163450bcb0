"""The 3-D configuration with a residual encoder, up to the matrix."""

from pathlib import Path

import numpy as np

from .conftest import Checkout, succeeded
from .independent import (
    MATRIX,
    predicted_by_command,
    recomputed,
    stored_matrix,
    voxels,
)


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
        "nnunet": {
            **{"configuration": "3d_fullres", "planner": "ResEncM", "batch_size": 2}
        },
        "training": {
            "base": {"epochs": 1, "iterations_per_epoch": 12},
            "finetune": {"epochs": 1, "iterations_per_epoch": 1},
        },
        "augmentation": {"copies": 1},
        "inference": {"mirroring": False},
        "clusters": {"min_size": 1, "max_removed_share": 0.4},
    }
    checkout = Checkout(tmp_path, config)
    succeeded(checkout.run(MATRIX))
    matrix = stored_matrix(checkout)
    assert matrix.shape == (3, 4)
    expected = recomputed(checkout, list(matrix.index), list(matrix.columns))
    np.testing.assert_allclose(matrix, expected, rtol=1e-6)
    # The networks have found something, or this would mean little.
    assert matrix.to_numpy().max() > 0.05
    plans = checkout.path("results/models/base/plans.json").read_text()
    assert "ResidualEncoderUNet" in plans

    row, column = matrix.index[0], matrix.columns[-1]
    model = f"finetuned/{row}"
    theirs = predicted_by_command(checkout, model, column, tmp_path / "theirs")
    ours = voxels(checkout.path(f"results/predictions/{model}/{column}.nii.gz"))
    assert len(np.unique(theirs)) > 1
    assert (ours == theirs).mean() >= 0.999
    assert checkout.path(
        "results/nnunet/preprocessed/Dataset001_Cohort/nnUNetPlans_3d_fullres"
    ).is_dir()
