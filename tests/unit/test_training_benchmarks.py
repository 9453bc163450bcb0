"""The arithmetic of the benchmarks of trainings and of their length."""

import pytest
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

from benchmarks import drift, iterating, precision, schedule, training


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(100, (20, 20)), (50, (20, 10)), (5, (20, 1)), (2, (8, 1)), (1, (4, 1))],
)
def test_a_share_of_a_schedule(percent: float, expected: tuple[int, int]) -> None:
    full = {"epochs": 20, "iterations_per_epoch": 20}
    assert schedule.shorten(full, percent) == expected


def test_tasks_of_the_benchmark() -> None:
    assert iterating.Task.parse("2d:plan") == iterating.Task("2d", None)
    assert str(iterating.Task.parse("3d_fullres:2")) == "3d_fullres:2"


def test_losses_are_compared_in_means_of_ten() -> None:
    first = [1.0] * 10 + [2.0] * 10
    second = [1.0] * 10 + [2.0, 3.0] * 5
    assert training.smooth(first) == [1.0, 2.0]
    assert training.distance(first, second) == pytest.approx(0.5)


def test_ratios_are_nnunets_time_by_ours() -> None:
    seconds = {"ours": [1.0, 2.0], "nnunet": [3.0, 3.0], "nnunet-again": [9.0, 9.0]}
    found = training.Outcome(iterating.Task("2d", 12), {}, seconds)
    assert found.ratio("ours") == "2.25 (1.50 to 3.00)"


def test_no_section_replaces_that_of_another_configuration() -> None:
    flat, deep = iterating.Task("2d", None), iterating.Task("3d_fullres", None)
    assert training.title("Training", [flat, deep]).startswith("Training on ")
    assert training.title("Training", [deep]).startswith("Training of 3d_fullres on ")


def test_every_fine_tune_is_a_training_of_its_own() -> None:
    """One of the same folder would be taken for finished."""
    jobs = list(training.JOBS.values())
    assert len({job.name for job in jobs}) == len(jobs)
    assert [job.part for job in jobs] == ["jobs", "jobs", "jobs", "loading"]


def test_a_precision_is_compared_with_a_seed() -> None:
    pairs = [
        precision.Pair([0.5, 0.7], [0.5, 0.72]),
        precision.Pair([0.6, 0.8], [0.57, 0.8]),
    ]
    text = precision.report(pairs)
    assert "| 0 | 0.6000 | 0.6100 | +0.0100 | 0.0200 |" in text
    assert "| 1 | 0.7000 | 0.6850 | -0.0150 | 0.0300 |" in text
    assert "0.0125 apart on average; in the seed (both float16): 0.1000." in text
    assert "apart" not in precision.report(pairs[:1])


def test_a_compiled_training_leaves_nothing_to_the_next() -> None:
    before = torch.get_num_threads()
    try:
        trainings = drift.Trainings()
        first, second = (trainings.losses(1, compiler="eager") for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert first == second
    assert isinstance(trainings._trainer.loss, DeepSupervisionWrapper)
    compiled = torch._dynamo.eval_frame.OptimizedModule
    assert not isinstance(trainings._trainer.loss.loss.dc, compiled)


def test_each_training_is_compared_with_the_one_that_it_differs_from() -> None:
    losses = {name: [1.0] * 20 for name in drift.VARIANTS} | {drift.PLAIN: [1.0] * 20}
    losses[drift.HALF] = [1.0] * 10 + [1.1] * 10
    losses[f"{drift.HALF}, compiled"] = [1.0] * 10 + [1.1, 1.3] * 5
    text = drift.report(losses)
    assert "| float32, again | float32 | 0.0000 | 0.0000 |" in text
    assert "| bfloat16 | float32 | 0.1000 | 0.1000 |" in text
    assert "| bfloat16, compiled | bfloat16 | 0.1000 | 0.2000 |" in text
