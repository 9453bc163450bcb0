"""Cases are chosen by hash, whatever the order of files, and lists are kept to."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casesim.cohort.selection import choose_refits, select
from casesim.errors import UserError

IDS = st.lists(st.text("abcXYZ019_-.", min_size=1, max_size=6), unique=True, min_size=3)


@given(IDS, st.data(), st.integers(0, 3))
def test_selection_does_not_depend_on_the_order_of_files(
    ids: list[str], data: st.DataObject, seed: int
) -> None:
    pool = data.draw(st.integers(1, len(ids) - 1))
    held_out = data.draw(st.integers(0, len(ids) - pool))
    shuffled = data.draw(st.permutations(ids))
    assert select(ids, pool, 1, held_out, seed) == select(
        shuffled, pool, 1, held_out, seed
    )


@given(IDS, st.data(), st.integers(0, 3))
def test_selection_is_disjoint_complete_and_grows(
    ids: list[str], data: st.DataObject, seed: int
) -> None:
    pool = data.draw(st.integers(1, len(ids) - 1))
    held_out = data.draw(st.integers(0, len(ids) - pool))
    train = data.draw(st.integers(1, pool))
    chosen = select(ids, pool, train, held_out, seed)
    assert not chosen.problems
    assert (len(chosen.pool), len(chosen.held_out)) == (pool, held_out)
    assert len(chosen.train) == train
    assert set(chosen.train) <= set(chosen.pool)
    assert not set(chosen.pool) & set(chosen.held_out)
    assert {*chosen.pool, *chosen.held_out} <= set(ids)
    if pool + held_out < len(ids):
        larger_pool = select(ids, pool + 1, train, held_out, seed)
        assert set(chosen.pool) < set(larger_pool.pool)
        assert chosen.train == larger_pool.train
        assert chosen.held_out == larger_pool.held_out
        more_held_out = select(ids, pool, train, held_out + 1, seed)
        assert set(chosen.held_out) < set(more_held_out.held_out)
        assert chosen.pool == more_held_out.pool
    if train < pool:
        more_train = select(ids, pool, train + 1, held_out, seed)
        assert set(chosen.train) < set(more_train.train)


def test_seeds_choose_differently() -> None:
    ids = [f"case_{i:03d}" for i in range(50)]
    assert select(ids, 20, 5, 5, 0).pool != select(ids, 20, 5, 5, 1).pool


def test_numbers_fill_up_around_lists() -> None:
    ids = [f"case_{i}" for i in range(8)]
    chosen = select(ids, 6, ["case_3"], ["case_1", "case_2"], 0)
    assert set(chosen.pool) == set(ids) - {"case_1", "case_2"}
    assert chosen.train == ("case_3",)
    chosen = select(ids, ["case_1", "case_2"], 2, 6, 0)
    assert set(chosen.held_out) == set(ids) - {"case_1", "case_2"}


def test_unknown_ids_are_all_named_with_close_matches() -> None:
    with pytest.raises(UserError) as caught:
        select(["BRATS_001", "BRATS_002", "x"], ["BRATS_01", "x"], ["zz"], ["BRATS"], 0)
    message = str(caught.value)
    assert "cohort.pool: BRATS_01 (did you mean BRATS_001" in message
    assert "cohort.train_cases: zz" in message
    assert "cohort.held_out: BRATS" in message
    assert "cohort.pool: x" not in message


@pytest.mark.parametrize(
    ("pool", "train", "held_out", "message"),
    [
        (["a", "b"], ["a"], ["b", "c"], "In cohort.pool and in cohort.held_out: b"),
        (["a", "b"], ["a", "c"], 0, "cohort.train_cases, but not in the pool: c"),
        (["a"], 2, 0, "cohort.train_cases is 2, but cohort.pool only 1"),
    ],
)
def test_contradictions_are_refused(
    pool: Any, train: Any, held_out: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        select(["a", "b", "c"], pool, train, held_out, 0)


def test_too_few_cases_are_a_problem_not_an_end() -> None:
    chosen = select(["a", "b", "c"], 4, 4, 2, 0)
    assert (len(chosen.pool), len(chosen.train), len(chosen.held_out)) == (3, 3, 0)
    (problem,) = chosen.problems
    assert problem.severity == "error"
    assert "4 pool cases" in problem.problem
    assert "2 held-out cases" in problem.problem
    assert "3 usable" in problem.problem


def test_an_id_named_twice_is_a_problem() -> None:
    chosen = select(["a", "b"], ["a", "a", "b"], 1, 0, 0)
    assert chosen.pool == ("a", "b")
    assert [p.problem for p in chosen.problems] == [
        "cohort.pool names the case 2 times"
    ]


def test_refits_are_drawn_by_id_and_more_of_them_contain_fewer() -> None:
    train = [f"case_{i:02d}" for i in range(30)]
    few, more = (choose_refits(train, n, 1) for n in (5, 12))
    assert len(few) == 5
    assert set(few) < set(more) < set(train)
    assert choose_refits(train[::-1], 5, 1) == few
    assert choose_refits(train, 5, 2) != few
    assert choose_refits(train, 0, 1) == []
    assert choose_refits(train, ["case_03", "case_01"], 1) == [
        "case_01",
        "case_03",
    ]


def test_only_train_cases_can_be_refitted() -> None:
    with pytest.raises(UserError, match=r"stability\.refits.*: x\. .*train_cases"):
        choose_refits(["a", "b"], ["a", "x"], 1)
