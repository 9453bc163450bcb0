"""The cohort is checked once for the files as they are."""

import json
from pathlib import Path
from typing import Any

import pytest

from casesim.cohort import gate
from casesim.cohort.cases import Case, Cohort
from casesim.cohort.fingerprints import Fingerprints
from casesim.cohort.problem import Problem
from casesim.errors import UserError

ERROR = Problem("a", "error", "is broken", "mend it")
WARNING = Problem("a", "warning", "is odd", "look at it")


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    for name in ("image", "label"):
        (tmp_path / name).write_text(name)
    image, label = str(tmp_path / "image"), str(tmp_path / "label")
    case = Case("a", (image,), label, "pool", True, "nnunet")
    return Cohort((case,), ["FLAIR"], {"background": 0, "tumor": 1}, {0: 0, 1: 1})


def checking(
    monkeypatch: pytest.MonkeyPatch, found: list[Problem]
) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []

    def check_cohort(*arguments: Any) -> list[Problem]:
        calls.append(arguments)
        return found

    name = "casesim.cohort.checks.across_cases.check_cohort"
    monkeypatch.setattr(name, check_cohort)
    return calls


def test_the_same_files_are_checked_once(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = checking(monkeypatch, [WARNING])
    results = tmp_path / "results"
    for _ in range(2):
        known = Fingerprints(tmp_path / "store")
        assert gate.check_once(cohort, known, results, 3, 5e9) == [WARNING]
    assert calls == [(cohort, 3, 5e9)]
    (tmp_path / "label").write_text("corrected")
    checking(monkeypatch, [])
    known = Fingerprints(tmp_path / "store")
    assert gate.check_once(cohort, known, results, 3) == []


def test_a_damaged_outcome_is_found_out_anew(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = checking(monkeypatch, [ERROR])
    known = Fingerprints(tmp_path / "store")
    gate.check_once(cohort, known, tmp_path, 1)
    state = tmp_path / ".checks.json"
    for damage in ("", "{", json.dumps({"key": 3}), json.dumps([])):
        state.write_text(damage)
        assert gate.check_once(cohort, known, tmp_path, 1) == [ERROR]
    assert len(calls) == 5


def test_errors_refuse_and_warnings_do_not() -> None:
    gate.refuse_errors([WARNING], "results/checks.tsv")
    with pytest.raises(UserError, match=r"1 error\(s\), listed in results/checks.tsv"):
        gate.refuse_errors([WARNING, ERROR], "results/checks.tsv")
