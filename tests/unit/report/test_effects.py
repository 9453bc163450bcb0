"""Donor against recipient: names that stand out, or a list of them."""

import itertools
import re
from pathlib import Path

import pandas as pd
import pytest
from unit.report.drawing import assert_apart, assert_nothing_clipped, simulate

from casesim.report import effects
from casesim.similarity import kinds
from casesim.similarity.effects import case_effects

NOTHING = kinds.NOTHING


def judged(matrix: pd.DataFrame) -> pd.DataFrame:
    """Cases with low rows or columns, called by one kind after the other."""
    table = case_effects(matrix.clip(0, 1))
    low = (table[["donor_effect", "recipient_effect"]] < -0.1).any(axis=1)
    names = [*kinds.KINDS[:3], f"{kinds.EXCHANGED}: edema and core", *kinds.KINDS[4:6]]
    accused = iter(itertools.cycle(names))
    return table.assign(kind=[next(accused) if is_low else NOTHING for is_low in low])


@pytest.mark.usefixtures("layout_only")
def test_effects_scatter_names_what_stands_out(tmp_path: Path) -> None:
    matrix = simulate(24, 24, (1, 7, 9))
    matrix.iloc[:, [7, 20]] -= 0.4
    table = judged(matrix)
    figure = effects.draw(table, tmp_path / "e.png", tmp_path / "e.svg")
    assert_nothing_clipped(figure)
    axes = figure.axes[0]
    named = {text.get_text() for text in axes.texts}
    notable = table.loc[table["kind"] != NOTHING, "case"]
    assert named == set(notable) == {"case_001", "case_007", "case_009", "case_020"}
    assert_apart(list(axes.texts))
    assert figure.texts == []


@pytest.mark.parametrize(
    ("prefix", "accused", "all_listed"),
    [("case_", 12, True), ("case_", 45, True), ("BraTS-GLI-00000-", 45, False)],
)
def test_effects_scatter_lists_the_names_of_a_crowd(
    tmp_path: Path, prefix: str, accused: int, all_listed: bool
) -> None:
    matrix = simulate(100, 100, tuple(range(accused)), prefix)
    table = judged(matrix)
    figure = effects.draw(table, tmp_path / "e.png", tmp_path / "e.svg")
    assert_nothing_clipped(figure)
    axes = figure.axes[0]
    (text,) = figure.texts
    named = [text.get_text() for text in axes.texts]
    named += re.findall(rf"{prefix}\d{{3}}", text.get_text())
    notable = table.loc[table["kind"] != NOTHING, "case"]
    assert len(notable) == accused
    assert len(named) == len(set(named))
    assert set(named) <= set(notable)
    assert (set(named) == set(notable)) == all_listed
    assert ("and more: see cases.tsv" in text.get_text()) != all_listed
    right = axes.get_window_extent().x1
    assert text.get_window_extent().x0 > right
