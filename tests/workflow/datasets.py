"""Data sets of five phantoms in nnU-Net's raw format, and small studies of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from casesim.cohort.cases import Cohort
from casesim.cohort.loading import load_cohort

from .conftest import Checkout, succeeded

# Four to train on, three of them with a model of their own, and a judge.
SIZES = {"pool": 4, "train_cases": 3, "held_out": 1}


def five_phantoms(
    shape: Sequence[int], spacing: Sequence[float]
) -> tuple[Cohort, dict[str, Any]]:
    """The cases, and what `cohort.phantom.patient.generate` makes of them.

    Args:
        shape, spacing: (z, y, x), in voxels and in mm.
    """
    phantom = {"shape": list(shape), "spacing": list(spacing), "scanners": 2}
    config = {"source": "phantom", **SIZES, "path": None, "seed": 0}
    cohort = load_cohort({**config, "phantom": {**phantom, "defects": {}}})
    return cohort, phantom


def describe(root: Path, **content: Any) -> None:
    """Write `dataset.json`."""
    (root / "dataset.json").write_text(json.dumps({"numTraining": 5, **content}))


def finish_study(
    folder: Path, write_dataset: Callable[[Path], None], config: Mapping[str, Any]
) -> Checkout:
    """Write a data set and run the workflow on it, as far as matrix and pictures."""
    write_dataset(folder / "data")
    cohort = {"source": "nnunet", **SIZES, "path": str(folder / "data")}
    checkout = Checkout(folder / "study", {**config, "cohort": cohort})
    pictures = ["results/cohort.png", "results/pruning/overlays.png"]
    succeeded(checkout.run("matrix", *pictures))
    return checkout
