"""What a run prints: few lines while it works, its answer at the end."""

import re

import pytest

from .conftest import Checkout, succeeded

LINE = re.compile(r"^\d\d:\d\d:\d\d +(\d+) %  (.*)$", re.MULTILINE)


@pytest.fixture
def told(finished: Checkout) -> list[str]:
    """The lines of the run that is finished, without time and share."""
    return [what for _, what in LINE.findall(finished.path("said.txt").read_text())]


@pytest.mark.parametrize(
    ("training", "number"),
    [
        *(("train_base", 1), ("finetune", 6), ("refit", 2), ("retrain", 2)),
        ("train_fold", 2),
    ],
)
def test_each_training_has_a_line(told: list[str], training: str, number: int) -> None:
    lines = [line for line in told if re.match(rf"{training}\b", line)]
    assert len(lines) == number
    assert all(re.search(r"\(\d+ (s|min)\)", line) for line in lines)


def test_stages_have_one_line_and_cells_are_a_count(told: list[str]) -> None:
    for stage in ("check_cohort", "import_case", "plan", "cluster", "compare"):
        assert sum(line.startswith(stage) for line in told) == 1, stage
    assert "import_case: all 8" in "\n".join(told)
    assert any(re.search(r"cells \d+ of \d+", line) for line in told)
    assert sum(line.startswith("predict: all") for line in told) == 1


def test_the_time_left_is_told_and_shares_do_not_fall(finished: Checkout) -> None:
    said = finished.path("said.txt").read_text()
    assert re.search(r" · about \d+ (s|min) left$", said, re.MULTILINE)
    shares = [int(share) for share, _ in LINE.findall(said)]
    assert shares == sorted(shares)
    assert len(said.splitlines()) < 120


def test_it_ends_with_its_answer_and_says_the_same_again(finished: Checkout) -> None:
    answer = finished.path("results/summary.md").read_text().strip()
    assert len(answer.splitlines()) < 15
    for part in (
        "Verdict: ",
        "orst cluster: ",
        "Review first:",
        "1. phantom_",
        "Open ",
    ):
        assert part in answer
    assert answer in finished.path("said.txt").read_text()
    again = succeeded(finished.run())
    assert "Nothing to be done" in again
    assert answer in again


def test_a_dry_run_prints_jobs_by_rule(finished: Checkout) -> None:
    plan = succeeded(finished.run("-n", "--forceall"))
    assert len(plan.splitlines()) < 80
    assert re.search(r"^finetune +6$", plan, re.MULTILINE)
    listed = succeeded(finished.run("-n", "-p", "--forceall"))
    assert len(re.findall("^rule finetune:$", listed, re.MULTILINE)) == 6
