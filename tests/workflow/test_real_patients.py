"""Six real patients, coarse and short, from their files to the comparison figure."""

from pathlib import Path

import pandas as pd
import pytest

from .conftest import SHARED, Checkout, succeeded

DATA = SHARED / "data/Task01_BrainTumour"

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"the real patients are not at {DATA}"
)


def test_six_patients_from_files_to_comparison(tmp_path: Path) -> None:
    config = {
        "cohort": {
            **{"source": "msd", "path": str(DATA)},
            **{"pool": 5, "train_cases": 4, "held_out": 1},
        },
        "nnunet": {"target_spacing": [3, 3, 3], "gpu_memory_target_gb": 1},
        "training": {
            "base": {"epochs": 2, "iterations_per_epoch": 30},
            "finetune": {"epochs": 1, "iterations_per_epoch": 8},
        },
        "augmentation": {"copies": 2},
        "clusters": {"max_removed_share": 0.5},
        "pruning": {"random_arms": 0},
        "inference": {"mirroring": False},
    }
    checkout = Checkout(tmp_path, config)
    succeeded(checkout.run())
    matrix = pd.read_csv(
        checkout.path("results/similarity/matrix.tsv"), sep="\t", index_col=0
    )
    assert matrix.shape == (4, 5)
    assert matrix.notna().all(axis=None)
    tumour = pd.read_csv(
        checkout.path("results/similarity/matrix_WT.tsv"), sep="\t", index_col=0
    )
    # Sixty iterations find the lesion, if nothing is wrong with the images.
    assert tumour.to_numpy().mean() > 0.3
    assert checkout.path("results/pruning/comparison.png").stat().st_size > 0
