"""Trainings of the tiny cohort, of a few iterations each."""

from pathlib import Path
from typing import Any

import torch
from unit.conftest import TinyCohort

from casesim.nnunet import checkpoints
from casesim.training import run

SCHEDULE = {"epochs": 2, "iterations_per_epoch": 3, "initial_lr": 0.01}


def train(cohort: TinyCohort, folder: Path, **changes: Any) -> Path:
    options: dict[str, Any] = {
        "cases": cohort.stems,
        "plans": cohort.plans,
        "dataset": cohort.dataset,
        "configuration": "2d",
        "out_folder": folder,
        "schedule": SCHEDULE,
        "seed": 0,
        "threads": 1,
        "device": "cpu",
    }
    return run.train(**(options | changes))


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = checkpoints.read_checkpoint(checkpoint)[
        "network_weights"
    ]
    return content


def equal(first: Path, second: Path) -> bool:
    return all(
        torch.equal(weight, weights(second)[name])
        for name, weight in weights(first).items()
    )
