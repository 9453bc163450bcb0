"""The budget is kept, and what is needed most stays."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from casesim.explorer import budget


@given(
    st.integers(1, 60),
    st.integers(0, 12),
    st.floats(0.001, 1000),
)
def test_all_rooms_together_keep_to_the_budget(
    number: int, first: int, megabytes: float
) -> None:
    cases = [f"case_{i}" for i in range(number)]
    rooms = [budget.room(case, cases, cases[:first], megabytes) for case in cases]
    assert sum(rooms) <= megabytes * 1e6
    # Nothing but the rounding is given away.
    assert sum(rooms) > megabytes * 1e6 - number


def test_cases_to_review_get_twice_the_room() -> None:
    cases = ["a", "b", "c", "d"]
    assert budget.room("a", cases, ["a"], 0.005) == 2000
    assert budget.room("b", cases, ["a"], 0.005) == 1000


def test_a_fifth_is_reviewed_first_and_at_least_three() -> None:
    ranked = [f"case_{i}" for i in range(21)]
    assert budget.review_first(ranked) == ranked[:5]
    assert budget.review_first(ranked[:4]) == ranked[:3]
    assert budget.review_first(ranked[:2]) == ranked[:2]


def test_maps_are_ordered_by_need() -> None:
    models = ["finetuned/c", "finetuned/a", "retrained/x", "finetuned/b", "base"]
    ordered = budget.order_of_maps("b", models, ranked=["c", "a", "b"])
    assert ordered == [
        "base",
        "retrained/x",
        "finetuned/b",
        "finetuned/c",
        "finetuned/a",
    ]


def test_what_is_too_large_keeps_out_nothing_smaller() -> None:
    sizes = {"a": 5, "b": 9, "c": 3, "d": 2}
    assert budget.fit(["a", "b", "c", "d"], sizes, 9) == (["a", "c"], ["b", "d"])
    assert budget.fit(["a"], sizes, 4) == ([], ["a"])


def test_the_ranking_is_that_of_the_table(tmp_path: Path) -> None:
    table = tmp_path / "cases.tsv"
    table.write_text("rank\tcase\tkind\n1\tNA\tx\n2\t007\ty\n")
    assert budget.read_ranking(table) == ["NA", "007"]
