"""Both measures of every score."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from unit.report.drawing import assert_nothing_clipped, tick_labels

from casesim.report import detection


@pytest.mark.usefixtures("layout_only")
@pytest.mark.parametrize("kinds", [["label"], ["label", "image"]])
def test_detection_draws_both_measures_of_every_score(
    kinds: list[str], tmp_path: Path
) -> None:
    names = ["cluster", "row_mean", "cleanlab"]
    table = pd.DataFrame(
        [
            {
                "score": name,
                "kind": "any",
                "defect": kind,
                "n_cases": 20,
                "n_defects": 5,
                "n_controls": 4,
                "auroc": 1 - 0.1 * i,
                "average_precision": 0.9 - 0.1 * i,
                "prevalence": 0.25,
                "controls_above": i,
            }
            for kind in kinds
            for i, name in enumerate(names)
        ]
    )
    figure = detection.draw(table, tmp_path / "d.png", tmp_path / "d.svg")
    assert_nothing_clipped(figure)
    assert len(figure.axes) == len(kinds)
    axes = figure.axes[0]
    assert axes.yaxis_inverted()
    shown = [text.get_text() for text in tick_labels(axes, "y")]
    assert shown == ["cluster", "row mean", "cleanlab"]
    dots = [
        np.asarray(part.get_offsets())
        for part in axes.collections
        if isinstance(part, PathCollection)
    ]
    np.testing.assert_allclose(dots[0][:, 0], [0.9, 0.8, 0.7])
    np.testing.assert_allclose(dots[1][:, 0], [1.0, 0.9, 0.8])
    texts = [text.get_text() for text in axes.texts]
    assert texts[:3] == ["0 of 4", "1 of 4", "2 of 4"]
