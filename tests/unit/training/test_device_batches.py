"""Batches made all samples at once against nnU-Net's transforms, sample by sample."""

import pytest
import torch
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from unit.conftest import TinyCohort
from unit.training.trainings import SCHEDULE

from casesim.nnunet.files import read_json
from casesim.training.batches import TRAINING, Batches
from casesim.training.cases import Cases
from casesim.training.draws import Draws, can_draw
from casesim.training.trainer import CaseTrainer

CPU = torch.device("cpu")
NUMBER = 6


def _batches(
    cohort: TinyCohort, configuration: str, patch: list[int] | None = None
) -> tuple[CaseTrainer, Cases, Batches]:
    plans = read_json(cohort.plans)
    if patch is not None:
        plans["configurations"][configuration]["patch_size"] = patch
    trainer = CaseTrainer(plans, configuration, "all", read_json(cohort.dataset), CPU)
    trainer.initialize(SCHEDULE, 0, None)
    cases = Cases(cohort.stems, 1000)
    return trainer, cases, trainer.batches(cases, 0, TRAINING)


def _always(batches: Batches, kind: str) -> None:
    """Make one transform certain, and the noise, which has no equal, impossible."""
    for transform in batches.loader.transforms.transforms:
        if isinstance(transform, SpatialTransform):
            if kind == "SpatialTransform":
                transform.p_rotation = transform.p_scaling = 1
        elif isinstance(transform, RandomTransform):
            if isinstance(transform.transform, GaussianNoiseTransform):
                transform.apply_probability = 0
            elif type(transform.transform).__name__ == kind:
                transform.apply_probability = 1


@pytest.mark.parametrize(
    "kind",
    [
        "none of them",
        "SpatialTransform",
        "GaussianBlurTransform",
        "MultiplicativeBrightnessTransform",
        "ContrastTransform",
        "SimulateLowResolutionTransform",
        "GammaTransform",
    ],
)
@pytest.mark.parametrize(
    ("configuration", "patch"), [("2d", None), ("3d_fullres", [8, 24, 16])]
)
def test_batches_are_nnunets(
    tiny_cohort: TinyCohort, configuration: str, patch: list[int] | None, kind: str
) -> None:
    trainer, cases, batches = _batches(tiny_cohort, configuration, patch)
    _always(batches, kind)
    expected = [batches[i] for i in range(NUMBER)]
    assert can_draw(batches.loader)
    ours = trainer.device_batches(cases, batches)
    draws = Draws(batches.loader, 0, TRAINING)
    for i, theirs in enumerate(expected):
        made = ours(draws[i])
        assert made["keys"] == list(theirs["keys"])
        torch.testing.assert_close(made["data"], theirs["data"], rtol=1e-3, atol=2e-3)
        for one, other in zip(made["target"], theirs["target"], strict=True):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            # Where the votes of two labels are equal, rounding decides.
            assert (one == other).float().mean() > 0.999
    assert any((batch["target"][0] > 0).any() for batch in expected)
