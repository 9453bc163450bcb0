"""Row means, refits and shares of resamples."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.patches import Rectangle
from unit.report.drawing import (
    assert_apart,
    assert_nothing_clipped,
    simulate,
    tick_labels,
)

from casesim.report import stability as figures
from casesim.similarity import stability
from casesim.similarity.clustering import cluster


@pytest.mark.usefixtures("layout_only")
@pytest.mark.parametrize(("cases", "refits"), [(12, 0), (12, 4), (100, 20)])
def test_stability_shows_every_case_and_every_refit(
    tmp_path: Path, cases: int, refits: int
) -> None:
    matrix = simulate(cases, cases, (1, 7))
    again = matrix.iloc[:refits] * 0.98
    clusters = cluster(matrix, bootstraps=2).clusters
    table = stability.stability(matrix, clusters, again, resamples=5).table
    figure = figures.draw(table, tmp_path / "s.png", tmp_path / "s.svg")
    assert_nothing_clipped(figure)
    left, right = figure.axes
    names = tick_labels(left, "y")
    assert {text.get_text() for text in names} == set(matrix.index)
    assert_apart(names)
    bold = {t.get_text() for t in names if t.get_fontweight() == "bold"}
    assert bold == set(clusters.loc[clusters["worst"], "case"])
    dots = [c for c in left.collections if isinstance(c, PathCollection)]
    drawn = [np.asarray(dot.get_offsets()).shape[0] for dot in dots]
    assert drawn == [cases, refits]
    widths = [bar.get_width() for bar in right.patches if isinstance(bar, Rectangle)]
    assert sorted(widths) == pytest.approx(sorted(table["worst_share"]))
