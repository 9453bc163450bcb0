"""The tree: legible, with the cut, the colours and the support."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from unit.report.drawing import (
    assert_apart,
    assert_nothing_clipped,
    draw_dendrogram,
    simulate,
    tick_labels,
)

from casesim.report import style
from casesim.similarity.clustering import cluster


@pytest.mark.usefixtures("layout_only")
@pytest.mark.parametrize("cases", [2, 12, 100])
def test_dendrogram_is_legible(cases: int, tmp_path: Path) -> None:
    low = (1, 7, 9) if cases > 2 else (1,)
    figure = draw_dendrogram(simulate(cases, cases, low), tmp_path)
    assert_nothing_clipped(figure)
    axes = figure.axes[0]
    names = tick_labels(axes, "y")
    assert len(names) == cases
    assert_apart(names)
    assert_apart(list(axes.texts))
    assert axes.get_xlabel() == "Euclidean distance between rows (UPGMA)"
    bold = {text.get_text() for text in names if text.get_fontweight() == "bold"}
    assert bold == {f"case_{row:03d}" for row in low}


@pytest.mark.usefixtures("layout_only")
def test_dendrogram_has_the_cut_the_colours_and_the_support(tmp_path: Path) -> None:
    matrix = simulate(12, 12, (1, 7, 9))
    result = cluster(matrix, bootstraps=20)
    figure = draw_dendrogram(matrix, tmp_path)
    axes = figure.axes[0]
    # Top to bottom as the heat map's rows.
    assert axes.yaxis_inverted()
    names = [text.get_text() for text in tick_labels(axes, "y")]
    assert names == result.leaf_order["case"].tolist()
    cut = [line for line in axes.lines if line.get_linestyle() == "--"]
    distance = result.summary["cut_distance"]
    np.testing.assert_allclose(np.asarray(cut[0].get_xdata()), [distance] * 2)
    heights = result.linkage["distance"].to_numpy()
    assert heights[-2] < distance < heights[-1]
    squares = next(c for c in axes.collections if isinstance(c, PathCollection))
    shown = [to_hex(c).upper() for c in np.asarray(squares.get_facecolor())]
    worst = result.clusters.set_index("case")["worst"]
    assert [c == style.VERMILION for c in shown] == worst.loc[names].tolist()
    assert {text.get_text() for text in axes.texts} >= {"100"}


@pytest.mark.usefixtures("layout_only")
def test_dendrogram_of_equal_rows(tmp_path: Path) -> None:
    matrix = simulate(5, 5, (1,))
    matrix[:] = 0.5
    assert_nothing_clipped(draw_dendrogram(matrix, tmp_path))
