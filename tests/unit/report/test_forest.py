"""The changes of all arms."""

import math
from pathlib import Path

import pandas as pd
import pytest
from unit.report.drawing import assert_nothing_clipped, tick_labels

from casesim.report import forest


@pytest.mark.usefixtures("layout_only")
def test_removal_forest(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "arm": ["worst_cluster", "lowest_rows", "random_1"],
            "mean": [0.02, 0.01, -0.002],
            "low": [0.01, math.nan, -0.01],
            "high": [0.03, math.nan, 0.004],
        }
    )
    figure = forest.draw(table, tmp_path / "f.png", tmp_path / "f.svg", relevant=0.005)
    assert_nothing_clipped(figure)
    axes = figure.axes[0]
    assert axes.yaxis_inverted()
    names = [text.get_text() for text in tick_labels(axes, "y")]
    assert names == ["worst cluster", "lowest rows", "random 1"]
    assert [text.get_text() for text in axes.texts] == [
        "+0.020  [+0.010, +0.030]",
        "+0.010",
        "-0.002  [-0.010, +0.004]",
    ]
