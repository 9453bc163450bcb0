"""What all figures share: colours, whole files, the same bytes, no screen."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from unit.report.drawing import (
    arms,
    draw_comparison,
    draw_dendrogram,
    draw_heatmap,
    simulate,
)

from casesim.report import forest, null_distribution, style


def written(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_clusters_are_told_apart_and_only_the_worst_is_vermilion() -> None:
    clusters = pd.DataFrame({"cluster": [1, 2, 3, 3, 4], "worst": [0, 0, 1, 1, 0]})
    clusters["worst"] = clusters["worst"].astype(bool)
    colours = style.cluster_colours(clusters)
    assert colours[3] == style.VERMILION
    assert len(set(colours.values())) == 4


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    matrix, table = simulate(6, 8, (1,)), arms(4, 2, ["worst_cluster"])
    folders = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        draw_heatmap(matrix, folder)
        draw_dendrogram(matrix, folder)
        draw_comparison(table, folder)
        folders.append(folder)
    assert len(written(folders[0])) == 6
    assert written(folders[0]) == written(folders[1])


def test_a_failing_figure_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        draw_comparison(arms(3, 1, ["worst_cluster"]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_screen_is_needed_and_no_figure_stays_open(tmp_path: Path) -> None:
    from matplotlib import pyplot as plt

    assert mpl.get_backend().lower() == "agg"
    draw_heatmap(simulate(4, 4, (1,)), tmp_path)
    draw_dendrogram(simulate(4, 4, (1,)), tmp_path)
    assert plt.get_fignums() == []


def test_nothing_to_compare_is_said_in_words(tmp_path: Path) -> None:
    nothing = pd.DataFrame({"arm": ["worst_cluster"], "mean": [np.nan]})
    nothing = nothing.assign(low=np.nan, high=np.nan)
    paths = (tmp_path / "f.png", tmp_path / "f.svg")
    for figure in (
        forest.draw(nothing, *paths),
        null_distribution.draw(np.nan, [0.1, 0.2], *paths),
        null_distribution.draw(0.1, [], *paths),
    ):
        (text,) = figure.texts
        assert text.get_text().startswith("No ")
        assert not figure.axes
