"""A cohort small enough to plan and train on in seconds."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch

from casesim.nnunet import planning, preprocessing, stages
from casesim.nnunet.files import write_json
from casesim.training import cascade

CHANNELS = ["FLAIR", "T1w", "T1gd", "T2w"]
LABELS = {"background": 0, "edema": 1, "core": 2, "rim": 3}
POOL = ["case_1", "case_2", "case_3", "case_4"]
HELD_OUT = ["case_5"]
SPACING = (3.0, 2.0, 2.0)  # z, y, x in mm


@dataclass(frozen=True)
class TinyCohort:
    raw: Path
    preprocessed: Path

    @property
    def plans(self) -> Path:
        return self.preprocessed / "nnUNetPlans.json"

    @property
    def dataset(self) -> Path:
        return self.preprocessed / "dataset.json"

    def images(self, case: str) -> list[Path]:
        return [self.raw / f"imagesTr/{case}_{i:04d}.nii.gz" for i in range(4)]

    def label(self, case: str) -> Path:
        return self.raw / f"labelsTr/{case}.nii.gz"

    def stem(self, case: str, configuration: str = "2d") -> Path:
        return self.preprocessed / f"nnUNetPlans_{configuration}" / case

    @property
    def stems(self) -> list[Path]:
        return [self.stem(case) for case in POOL]


def tiny_case(
    seed: int, gain: float = 1.0, size: float = 1
) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid brain with three nested lesion labels: (4, 12, 32, 32), (12, 32,
    32), `size` times as many voxels along each axis."""
    draw = np.random.default_rng(seed)
    z, y, x = np.mgrid[: 12 * size, : 32 * size, : 32 * size] / size
    brain = ((z - 6) / 5) ** 2 + ((y - 16) / 14) ** 2 + ((x - 16) / 13) ** 2 < 1
    cy, cx = draw.integers(13, 19, 2)
    lesion = ((z - 6) / 4) ** 2 + ((y - cy) / 7) ** 2 + ((x - cx) / 6) ** 2
    label = np.select([lesion < 0.2, lesion < 0.5, lesion < 1], [3, 2, 1], 0)
    contrast = np.array(
        [[0, 60, 30, 10], [0, -30, -60, 20], [0, 20, 0, 90], [0, 50, 80, 60]]
    )
    image = gain * (200 + contrast[:, label] + draw.normal(0, 5, (4, *label.shape)))
    return (image * brain).astype(np.float32), label.astype(np.uint8)


def _write(array: np.ndarray, path: Path) -> None:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))


@pytest.fixture(scope="session")
def cascade_cohort(tmp_path_factory: pytest.TempPathFactory) -> TinyCohort:
    """Four cases, preprocessed for both stages of the cascade; do not change them.

    Planned with a GPU of 10 MB in mind, so that they are large.
    """
    root = tmp_path_factory.mktemp("cascade")
    cohort = TinyCohort(root / "raw", root / "preprocessed")
    statistics = ("max", "mean", "median", "min", "std")
    percentiles = ("percentile_00_5", "percentile_99_5")
    fingerprint = {
        "spacings": [list(SPACING)] * 4,
        "shapes_after_crop": [[15, 41, 39]] * 4,
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {
            str(i): dict.fromkeys(statistics + percentiles, 1.0) for i in range(4)
        },
    }
    dataset = planning.dataset_json(POOL, CHANNELS, LABELS)
    plans = planning.plans_for(fingerprint, dataset, {"gpu_memory_target_gb": 0.01})
    write_json(cohort.plans, plans)
    write_json(cohort.dataset, dataset)
    for seed, case in enumerate(POOL):
        image, label = tiny_case(seed, size=1.5)
        for channel, path in zip(image, cohort.images(case), strict=True):
            _write(channel, path)
        _write(label, cohort.label(case))
        for stage in stages.stages(stages.CASCADE):
            preprocessing.preprocess_case(
                cohort.images(case),
                cohort.label(case),
                cohort.plans,
                cohort.dataset,
                stage,
                cohort.stem(case, stage),
            )
    return cohort


def train_cascade(cohort: TinyCohort, folder: Path, **changes: Any) -> Path:
    """A model of both stages, of three iterations each; its checkpoint."""
    options: dict[str, Any] = {
        "cases": [
            cohort.stem(case, stage)
            for stage in reversed(stages.stages(stages.CASCADE))
            for case in POOL
        ],
        "plans": cohort.plans,
        "dataset": cohort.dataset,
        "configuration": stages.CASCADE,
        "out_folder": folder,
        "schedule": {"epochs": 1, "iterations_per_epoch": 3, "initial_lr": 0.01},
        "seed": 0,
        "threads": 1,
        "device": "cpu",
    }
    return cascade.train(**(options | changes))


@pytest.fixture(scope="session")
def cascade_pair(
    cascade_cohort: TinyCohort, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model of `cascade_cohort`; do not change it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    trained = train_cascade(cascade_cohort, tmp_path_factory.mktemp("pair"))
    torch.set_num_threads(before)
    return trained


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory: pytest.TempPathFactory) -> TinyCohort:
    """Five cases, planned and preprocessed for 2d; do not change its files."""
    root = tmp_path_factory.mktemp("tiny")
    cohort = TinyCohort(
        root / "raw" / planning.DATASET, root / "preprocessed" / planning.DATASET
    )
    for seed, case in enumerate(POOL + HELD_OUT):
        # The held-out case is a hundred times as bright, so that it would show.
        image, label = tiny_case(seed, gain=100.0 if case in HELD_OUT else 1.0)
        for channel, path in zip(image, cohort.images(case), strict=True):
            _write(channel, path)
        _write(label, cohort.label(case))
    # What an earlier, different planning might have left.
    cohort.preprocessed.mkdir(parents=True)
    (cohort.preprocessed / "dataset_fingerprint.json").write_text('{"stale": true}')
    stale = {"configurations": {"3d_fullres": {}, "mine": {"stale": True}}}
    cohort.plans.write_text(json.dumps(stale))
    planning.plan(
        cohort.raw,
        cohort.preprocessed,
        POOL[::-1],
        CHANNELS,
        LABELS,
        {"configuration": "2d", "target_spacing": None, "gpu_memory_target_gb": 8},
        processes=1,
    )
    for case in POOL + HELD_OUT:
        preprocessing.preprocess_case(
            cohort.images(case),
            cohort.label(case),
            cohort.plans,
            cohort.dataset,
            "2d",
            cohort.stem(case),
        )
    return cohort
