"""Every kind of broken cohort is named; docs/reliability.md counts them."""

from pathlib import Path

import pytest
from unit.cohort.broken import KINDS
from unit.cohort.checks.broken import Folder
from unit.cohort.folders import ROOT

from casesim.cohort.checks.across_cases import check_cohort
from casesim.cohort.loading import load_cohort
from casesim.cohort.problem import Problem
from casesim.errors import UserError


@pytest.mark.parametrize("name", KINDS)
def test_it_is_named(name: str, tmp_path: Path) -> None:
    break_it, message = KINDS[name]
    folder = Folder(tmp_path / "raw")
    changes = break_it(folder) or {}
    try:
        problems = check_cohort(load_cohort({**folder.config, **changes}), 1)
    except UserError as error:
        problems = [Problem("(config)", "error", str(error), "said with it")]
    named = [problem for problem in problems if message in problem.problem]
    assert named, "\n".join(problem.problem for problem in problems)
    assert all(problem.case and problem.how_to_fix for problem in named)


def test_the_documentation_counts_them() -> None:
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    assert len(KINDS) >= 60
    assert f"{len(KINDS)} kinds of broken cohorts" in text
