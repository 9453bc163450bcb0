"""The synthetic cohort as a source."""

import pytest
from unit.cohort.folders import PHANTOM, config

from casesim.cohort.loading import load_cohort
from casesim.errors import UserError


def test_phantom() -> None:
    small = config("phantom", pool=4, train_cases=3, held_out=2)
    small["phantom"] = {**PHANTOM, "defects": {"swapped_labels": 2}, "controls": {}}
    cohort = load_cohort(small)
    assert cohort.pool == [f"phantom_00{i}" for i in (1, 2, 3, 4)]
    assert cohort.held_out == ["phantom_005", "phantom_006"]
    planted = {case.id: case.planted for case in cohort.cases if case.planted}
    assert set(planted) <= set(cohort.train)
    assert list(planted.values()) == ["swapped_labels"] * 2
    assert cohort.cases[0].existing_sources == ()
    assert not cohort.problems
    listed = load_cohort(config("phantom", pool=["phantom_002", "phantom_007"]))
    assert listed.pool == ["phantom_002", "phantom_007"]
    assert listed.held_out == ["phantom_006"]
    with pytest.raises(UserError, match=r"phantom_7 \(did you mean"):
        load_cohort(config("phantom", pool=["phantom_7"]))
