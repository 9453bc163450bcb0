"""Before and after: legible, held-out apart, the values of the table."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from unit.report.drawing import (
    arms,
    assert_apart,
    assert_nothing_clipped,
    draw_comparison,
    tick_labels,
)

from casesim.report import comparison


@pytest.mark.usefixtures("layout_only")
@pytest.mark.parametrize(("pool", "held_out"), [(12, 4), (12, 0), (100, 40), (5, 1)])
def test_comparison_is_legible(pool: int, held_out: int, tmp_path: Path) -> None:
    table = arms(pool, held_out, ["worst_cluster", "random_1"])
    figure = draw_comparison(table, tmp_path)
    assert_nothing_clipped(figure)
    bottom = figure.axes[-2:] if held_out else figure.axes[-1:]
    assert sum(len(tick_labels(axes, "x")) for axes in bottom) == pool + held_out
    for axes in bottom:
        assert_apart(tick_labels(axes, "x"))
    titles = [t for a in figure.axes for t in a.get_children() if isinstance(t, Text)]
    assert_apart([*titles, *figure.texts])


@pytest.mark.usefixtures("layout_only")
def test_comparison_keeps_held_out_apart_and_marks_removed(tmp_path: Path) -> None:
    table = arms(8, 3, ["worst_cluster", "random_1"])
    figure = draw_comparison(table, tmp_path)
    pool, held_out = figure.axes[2:]
    ordered = table.drop_duplicates("case").set_index("case")["dice_before"]
    shown = [text.get_text() for text in tick_labels(pool, "x")]
    assert shown == ordered[:8].sort_values().index.tolist()
    shown = [text.get_text() for text in tick_labels(held_out, "x")]
    assert shown == ordered[8:].sort_values().index.tolist()
    names = ordered[:8].sort_values().index.tolist()
    for axes, removed in zip(figure.axes[0::2], ((0, 1), (1, 2)), strict=True):
        spans = [p for p in axes.patches if isinstance(p, Rectangle)]
        places = {round(span.get_x() + 0.5) for span in spans}
        assert {names[place] for place in places} == {f"case_{i:03d}" for i in removed}
    assert not [p for axes in figure.axes[1::2] for p in axes.patches]


@pytest.mark.usefixtures("layout_only")
def test_comparison_draws_the_values(tmp_path: Path) -> None:
    table = arms(6, 2, ["worst_cluster"])
    figure = draw_comparison(table, tmp_path)
    before, rising, falling = (
        c for c in figure.axes[0].collections if isinstance(c, PathCollection)
    )
    pool = table[table["role"] == "pool"].sort_values("dice_before")
    drawn = np.asarray(before.get_offsets())
    np.testing.assert_allclose(np.sort(drawn[:, 1]), pool["dice_before"])
    up = pool["dice_after"] >= pool["dice_before"]
    for points, chosen in ((rising, up), (falling, ~up)):
        found = np.asarray(points.get_offsets())[:, 1]
        np.testing.assert_allclose(
            np.sort(found), pool["dice_after"][chosen].sort_values()
        )
    kept = pool[~pool["removed"]]["delta"].mean()
    assert f"{kept:+.3f}" in figure.axes[0].get_title(loc="left")


def test_pairs_average_seeds_and_gather_many_random_arms() -> None:
    names = ["worst_cluster", *(f"random_{r}" for r in range(1, 6))]
    table = arms(9, 3, names, seeds=(0, 1))
    pairs = comparison.pair_table(table)
    assert pairs["arm"].unique().tolist() == ["worst_cluster", "random (5 arms)"]
    rows = table[(table["arm"] == "worst_cluster") & (table["case"] == "case_004")]
    pair = pairs[(pairs["arm"] == "worst_cluster") & (pairs["case"] == "case_004")]
    assert pair["after"].item() == pytest.approx(rows["dice_after"].mean())
    assert pair["after_low"].item() == rows["dice_after"].min()
    assert pair["after_high"].item() == rows["dice_after"].max()
    # A random arm counts only for the cases that it kept.
    random = table["arm"].str.startswith("random") & (table["case"] == "case_003")
    kept = table[random & ~table["removed"]]
    assert 0 < len(kept) < random.sum()
    pair = pairs[(pairs["arm"] != "worst_cluster") & (pairs["case"] == "case_003")]
    assert pair["after"].item() == pytest.approx(kept["dice_after"].mean())
    assert not pair["removed"].item()


def test_undefined_pairs_are_left_out_of_the_comparison() -> None:
    table = arms(4, 1, ["worst_cluster"])
    table.loc[2, "dice_after"] = math.nan
    assert "case_002" not in comparison.pair_table(table)["case"].tolist()


def test_comparison_without_a_defined_pair_says_so(tmp_path: Path) -> None:
    figure = draw_comparison(arms(3, 1, ["worst_cluster"]).iloc[:0], tmp_path)
    assert "No case has a defined Dice" in figure.texts[0].get_text()
