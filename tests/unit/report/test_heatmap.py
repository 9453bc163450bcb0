"""The heat map: legible, in leaf order, the worst marked, undefined cells grey."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle
from unit.report.drawing import (
    assert_apart,
    assert_nothing_clipped,
    draw_heatmap,
    simulate,
    tick_labels,
)

from casesim.report import style
from casesim.similarity.clustering import cluster


def heat_axes(figure: Figure) -> Axes:
    return next(a for a in figure.axes if a.get_xlabel().startswith("evaluated on"))


@pytest.mark.usefixtures("layout_only")
@pytest.mark.parametrize(
    ("train", "test", "prefix"),
    [
        (2, 2, "case_"),
        (12, 12, "case_"),
        (12, 12, "a_very_long_case_name_of_some_hospital_"),
        (50, 100, "BRATS_"),
        (100, 100, "case_"),
    ],
)
def test_heatmap_is_legible(train: int, test: int, prefix: str, tmp_path: Path) -> None:
    low = (1, 7, 9) if train > 2 else (1,)
    figure = draw_heatmap(simulate(train, test, low, prefix), tmp_path)
    assert_nothing_clipped(figure)
    axes = heat_axes(figure)
    rows, columns = tick_labels(axes, "y"), tick_labels(axes, "x")
    assert len(rows) == train
    assert len(columns) == test
    for texts in (rows, columns):
        assert_apart(texts)
        assert min(float(text.get_fontsize()) for text in texts) >= 6
    outside = [text for text in rows if text.get_window_extent().x0 < 0]
    assert not outside
    assert axes.get_ylabel() == "fine-tuned on (train case)"
    assert axes.get_xlabel() == "evaluated on (test case)"
    bar = [a for a in figure.axes if a.get_ylabel() == "Dice (mean over labels)"]
    assert len(bar) == 1
    assert bar[0].get_ylim() == (0, 1)
    # The colour bar, the key and the names beside the matrix keep clear of each other.
    legend = figure.legends[0].get_window_extent()
    side = max(text.get_window_extent().x1 for text in [*rows, axes.yaxis.label])
    assert legend.x0 >= side
    bar_box = bar[0].get_tightbbox()
    assert bar_box is not None
    assert bar_box.y1 <= legend.y0


@pytest.mark.usefixtures("layout_only")
def test_heatmap_of_too_many_cases_names_every_nth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "LONGEST_SIDE", 8.0)
    figure = draw_heatmap(simulate(5, 100, (1, 2)), tmp_path)
    assert_nothing_clipped(figure)
    columns = tick_labels(heat_axes(figure), "x")
    assert len(columns) == 50
    assert_apart(columns)


@pytest.mark.usefixtures("layout_only")
def test_heatmap_is_in_leaf_order_and_marks_the_worst(tmp_path: Path) -> None:
    matrix = simulate(12, 15, (1, 7, 9))
    result = cluster(matrix, bootstraps=2)
    figure = draw_heatmap(matrix, tmp_path)
    axes = heat_axes(figure)
    order = result.leaf_order["case"].tolist()
    rows = [text.get_text() for text in tick_labels(axes, "y")]
    columns = [text.get_text() for text in tick_labels(axes, "x")]
    assert rows == order
    assert columns[:12] == order
    assert sorted(columns[12:]) == ["case_012", "case_013", "case_014"]
    shown = np.asarray(axes.collections[0].get_array()).reshape(12, 15)
    np.testing.assert_allclose(shown, matrix.loc[rows, columns])
    marked = {
        t.get_text() for t in tick_labels(axes, "y") if t.get_fontweight() == "bold"
    }
    assert marked == {"case_001", "case_007", "case_009"}
    frame = [
        patch
        for patch in axes.patches
        if isinstance(patch, Rectangle)
        and to_hex(patch.get_edgecolor()).upper() == style.VERMILION
    ]
    top = int(frame[0].get_y())
    assert set(rows[top : top + int(frame[0].get_height())]) == marked
    assert "worst" in figure.legends[0].get_texts()[-1].get_text()
    names = {text.get_text() for text in axes.texts}
    assert names == {"train cases, in leaf order", "other pool cases"}


def test_undefined_cells_are_grey_and_explained(tmp_path: Path) -> None:
    matrix = simulate(12, 12, (1, 7, 9))
    complete = draw_heatmap(matrix, tmp_path)
    key = [text.get_text() for text in complete.legends[0].get_texts()]
    assert not any("undefined" in text for text in key)
    matrix.loc["case_000", "case_005"] = math.nan
    figure = draw_heatmap(matrix, tmp_path)
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("undefined" in text for text in key)
    axes = heat_axes(figure)
    rows = [text.get_text() for text in tick_labels(axes, "y")]
    columns = [text.get_text() for text in tick_labels(axes, "x")]
    image = imread(tmp_path / "heatmap.png")
    at = columns.index("case_005") + 0.5, rows.index("case_000") + 0.5
    across, up = figure.transFigure.inverted().transform(axes.transData.transform(at))
    pixel = image[int((1 - up) * image.shape[0]), int(across * image.shape[1]), :3]
    assert to_hex(tuple(pixel)).upper() == style.UNDEFINED


@pytest.mark.usefixtures("layout_only")
def test_heatmap_of_a_region_says_so(tmp_path: Path) -> None:
    figure = draw_heatmap(simulate(6, 6, (1,)), tmp_path, region="TC")
    assert any(axes.get_ylabel() == "Dice (TC)" for axes in figure.axes)
    assert any("TC" in text.get_text() for text in figure.texts)
