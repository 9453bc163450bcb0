"""Donor against recipient: names that stand out, or a list of them."""

import re
from pathlib import Path

import pytest
from unit.report.drawing import assert_apart, assert_nothing_clipped, simulate

from casesim.report import effects
from casesim.similarity.effects import FINE, case_effects


@pytest.mark.usefixtures("layout_only")
def test_effects_scatter_names_what_stands_out(tmp_path: Path) -> None:
    matrix = simulate(24, 24, (1, 7, 9))
    matrix.iloc[:, [7, 20]] -= 0.4
    table = case_effects(matrix.clip(0, 1))
    figure = effects.draw(table, tmp_path / "e.png", tmp_path / "e.svg")
    assert_nothing_clipped(figure)
    axes = figure.axes[0]
    named = {text.get_text() for text in axes.texts}
    notable = table.loc[table["word"] != FINE, "case"]
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
    table = case_effects(matrix)
    figure = effects.draw(table, tmp_path / "e.png", tmp_path / "e.svg")
    assert_nothing_clipped(figure)
    axes = figure.axes[0]
    (text,) = figure.texts
    named = [text.get_text() for text in axes.texts]
    named += re.findall(rf"{prefix}\d{{3}}", text.get_text())
    notable = table.loc[table["word"] != FINE, "case"]
    assert len(notable) == accused
    assert len(named) == len(set(named))
    assert set(named) <= set(notable)
    assert (set(named) == set(notable)) == all_listed
    assert ("and more: see cases.tsv" in text.get_text()) != all_listed
    right = axes.get_window_extent().x1
    assert text.get_window_extent().x0 > right
