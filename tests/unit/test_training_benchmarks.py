"""The arithmetic of the benchmarks of trainings and of their length."""

import pytest

from benchmarks import iterating, schedule, training


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
    assert found.ratios == [3.0, 1.5]
