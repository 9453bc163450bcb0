"""Figures: nothing clipped, no name over another, everything that matters is shown."""

import json
import math
import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from casesim.report import figures
from casesim.similarity import clustering, stability

SCRIPTS = Path(__file__).parents[3] / "workflow_scripts"
LABELS = {"edema": 1, "non-enhancing_tumor": 2, "enhancing_tumour": 3}


def simulate(
    train: int, test: int, low: tuple[int, ...], prefix: str = "case_"
) -> pd.DataFrame:
    random = np.random.default_rng(train)
    level = random.uniform(0.7, 0.78, train)
    level[list(low)] = 0.25
    values = level[:, None] + random.normal(0, 0.04, (train, test))
    values[range(train), range(train)] = 0.93
    names = [f"{prefix}{i:03d}" for i in range(test)]
    return pd.DataFrame(values.clip(0, 1), index=names[:train], columns=names)


def draw_heatmap(matrix: pd.DataFrame, folder: Path, **options: Any) -> Figure:
    result = clustering.cluster(matrix, bootstraps=2)
    return figures.heatmap(
        matrix,
        result.linkage.to_numpy(float),
        result.clusters,
        folder / "heatmap.png",
        folder / "heatmap.svg",
        **options,
    )


def draw_dendrogram(matrix: pd.DataFrame, folder: Path) -> Figure:
    result = clustering.cluster(matrix, bootstraps=20)
    return figures.dendrogram(
        result.linkage.to_numpy(float),
        result.clusters,
        folder / "dendrogram.png",
        folder / "dendrogram.svg",
        cut_distance=result.summary["cut_distance"],
        support=result.summary["support"],
    )


@pytest.fixture
def layout_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the writing of large pictures, which takes most of the time."""
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)


def assert_nothing_clipped(figure: Figure) -> None:
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height


def tick_labels(axes: Axes, which: str) -> list[Text]:
    axis = axes.xaxis if which == "x" else axes.yaxis
    return [t for t in axis.get_ticklabels() if t.get_visible() and t.get_text()]


def assert_apart(texts: list[Text]) -> None:
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    for i, box in enumerate(boxes):
        # Touching within half a pixel is no overlap.
        inner = Bbox.from_extents(
            box.x0 + 0.5, box.y0 + 0.5, box.x1 - 0.5, box.y1 - 0.5
        )
        for other in boxes[i + 1 :]:
            assert not inner.overlaps(other)


def heat_axes(figure: Figure) -> Axes:
    return next(a for a in figure.axes if a.get_xlabel().startswith("evaluated on"))


def written(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


# Heat map


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
    monkeypatch.setattr(figures, "LONGEST_SIDE", 8.0)
    figure = draw_heatmap(simulate(5, 100, (1, 2)), tmp_path)
    assert_nothing_clipped(figure)
    columns = tick_labels(heat_axes(figure), "x")
    assert len(columns) == 50
    assert_apart(columns)


@pytest.mark.usefixtures("layout_only")
def test_heatmap_is_in_leaf_order_and_marks_the_worst(tmp_path: Path) -> None:
    matrix = simulate(12, 15, (1, 7, 9))
    result = clustering.cluster(matrix, bootstraps=2)
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
        and to_hex(patch.get_edgecolor()).upper() == figures.VERMILION
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
    assert to_hex(tuple(pixel)).upper() == figures.UNDEFINED


@pytest.mark.usefixtures("layout_only")
def test_heatmap_of_a_region_says_so(tmp_path: Path) -> None:
    figure = draw_heatmap(simulate(6, 6, (1,)), tmp_path, region="TC")
    assert any(axes.get_ylabel() == "Dice (TC)" for axes in figure.axes)
    assert any("TC" in text.get_text() for text in figure.texts)


# Dendrogram


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
    result = clustering.cluster(matrix, bootstraps=20)
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
    assert [c == figures.VERMILION for c in shown] == worst.loc[names].tolist()
    assert {text.get_text() for text in axes.texts} >= {"100"}


@pytest.mark.usefixtures("layout_only")
def test_dendrogram_of_equal_rows(tmp_path: Path) -> None:
    matrix = simulate(5, 5, (1,))
    matrix[:] = 0.5
    assert_nothing_clipped(draw_dendrogram(matrix, tmp_path))


def test_clusters_are_told_apart_and_only_the_worst_is_vermilion() -> None:
    clusters = pd.DataFrame({"cluster": [1, 2, 3, 3, 4], "worst": [0, 0, 1, 1, 0]})
    clusters["worst"] = clusters["worst"].astype(bool)
    colours = figures.cluster_colours(clusters)
    assert colours[3] == figures.VERMILION
    assert len(set(colours.values())) == 4


# Before and after


def arms(
    pool: int, held_out: int, names: list[str], seeds: tuple[int, ...] = (0,)
) -> pd.DataFrame:
    random = np.random.default_rng(7)
    rows = []
    for i in range(pool + held_out):
        before = random.uniform(0.5, 0.9)
        for arm, name in enumerate(names):
            removed = i in (arm, arm + 1) and i < pool
            for seed in seeds:
                after = before + random.normal(0, 0.02) - 0.2 * removed
                rows.append(
                    {
                        "arm": name,
                        "seed": seed,
                        "case": f"case_{i:03d}",
                        "role": "pool" if i < pool else "held_out",
                        "removed": removed,
                        "region": "mean",
                        "dice_before": before,
                        "dice_after": after,
                        "delta": after - before,
                    }
                )
    return pd.DataFrame(rows)


def draw_comparison(table: pd.DataFrame, folder: Path, **options: Any) -> Figure:
    return figures.comparison(
        table, folder / "comparison.png", folder / "comparison.svg", **options
    )


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
    pairs = figures.pair_table(table)
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
    assert "case_002" not in figures.pair_table(table)["case"].tolist()


def test_comparison_without_a_defined_pair_says_so(tmp_path: Path) -> None:
    figure = draw_comparison(arms(3, 1, ["worst_cluster"]).iloc[:0], tmp_path)
    assert "No case has a defined Dice" in figure.texts[0].get_text()


# Images


def volumes() -> tuple[np.ndarray, np.ndarray]:
    z, y, x = np.mgrid[:10, :40, :36]
    head = (y - 20) ** 2 / 324 + (x - 18) ** 2 / 256 < 1
    label = ((y - 16) ** 2 + (x - 22) ** 2 + (z - 5) ** 2 < 30).astype(int)
    label += (y - 16) ** 2 + (x - 22) ** 2 + (z - 5) ** 2 < 12
    return head * 100.0 + label * 40, label


def test_overlays_show_the_slice_that_changed_most(tmp_path: Path) -> None:
    image, label = volumes()
    after = label.copy()
    after[7] = 0
    after[4, 16, 22] = 3
    overlay = figures.Overlay("case_001\nmost improved", image, label, label, after)
    assert figures.disagreeing_slice(overlay) == 7
    same = figures.Overlay("same", image, label, label, label)
    assert figures.disagreeing_slice(same) == 5
    figure = figures.overlays(
        [overlay, same], LABELS, tmp_path / "o.png", tmp_path / "o.svg"
    )
    assert_nothing_clipped(figure)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["reference", "before", "after"] * 2
    assert "axial slice 7" in figure.axes[0].get_ylabel()
    # In slice 7 the reference has contours, the model after has none left.
    assert len(figure.axes[0].collections) > len(figure.axes[2].collections)
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert key == ["edema", "non-enhancing tumor", "enhancing tumour"]


def test_overlays_of_nothing_say_so(tmp_path: Path) -> None:
    figure = figures.overlays([], LABELS, tmp_path / "o.png", tmp_path / "o.svg")
    assert "nothing was compared" in figure.texts[0].get_text()


@pytest.mark.usefixtures("layout_only")
@pytest.mark.parametrize("number", [1, 6])
def test_gallery(number: int, tmp_path: Path) -> None:
    image, label = volumes()
    cases = [
        figures.GalleryCase(
            f"case_{i:03d}" + "\nswapped labels" * (i == 3),
            {"FLAIR": image, "T1gd": image},
            label,
        )
        for i in range(number)
    ]
    figure = figures.cohort_gallery(
        cases, LABELS, tmp_path / "g.png", tmp_path / "g.svg"
    )
    assert_nothing_clipped(figure)
    shown = [cell._suptitle for cell in figure.subfigs if cell._suptitle]  # type: ignore[attr-defined]
    assert len(shown) == number
    assert_apart(shown)
    assert len(figure.axes) == 2 * number


def test_gallery_has_a_limit(tmp_path: Path) -> None:
    image, label = volumes()
    case = figures.GalleryCase("case", {"FLAIR": image}, label)
    with pytest.raises(ValueError, match="1 to 24"):
        figures.cohort_gallery(
            [case] * 25, LABELS, tmp_path / "g.png", tmp_path / "g.svg"
        )


def test_an_empty_slice_can_be_drawn(tmp_path: Path) -> None:
    nothing = np.zeros((3, 8, 8))
    mask = nothing.astype(int)
    overlay = figures.Overlay("empty", nothing, mask, mask, mask)
    figures.overlays([overlay], LABELS, tmp_path / "o.png", tmp_path / "o.svg")
    assert (tmp_path / "o.png").stat().st_size > 0


# Evidence


@pytest.mark.usefixtures("layout_only")
@pytest.mark.parametrize("number", [3, 19, 99])
def test_null_distribution(number: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0, 0.01, number)
    figure = figures.null_distribution(
        0.02, values, tmp_path / "n.png", tmp_path / "n.svg", p=0.05, floor=0.05
    )
    assert_nothing_clipped(figure)
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "worst cluster +0.020" in key
    assert f"random arms (R = {number})" in key
    assert any(text.startswith("p = 0.05") for text in key)
    if number < 20:
        dots = np.asarray(figure.axes[0].collections[0].get_offsets())
        np.testing.assert_allclose(np.sort(dots[:, 0]), np.sort(values))


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
    figure = figures.removal_forest(
        table, tmp_path / "f.png", tmp_path / "f.svg", relevant=0.005
    )
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
    figure = figures.detection(table, tmp_path / "d.png", tmp_path / "d.svg")
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


@pytest.mark.usefixtures("layout_only")
def test_effects_scatter_names_what_stands_out(tmp_path: Path) -> None:
    matrix = simulate(24, 24, (1, 7, 9))
    matrix.iloc[:, [7, 20]] -= 0.4
    effects = clustering.case_effects(matrix.clip(0, 1))
    figure = figures.effects_scatter(effects, tmp_path / "e.png", tmp_path / "e.svg")
    assert_nothing_clipped(figure)
    axes = figure.axes[0]
    named = {text.get_text() for text in axes.texts}
    notable = effects.loc[effects["word"] != clustering.FINE, "case"]
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
    effects = clustering.case_effects(matrix)
    figure = figures.effects_scatter(effects, tmp_path / "e.png", tmp_path / "e.svg")
    assert_nothing_clipped(figure)
    axes = figure.axes[0]
    (text,) = figure.texts
    named = [text.get_text() for text in axes.texts]
    named += re.findall(rf"{prefix}\d{{3}}", text.get_text())
    notable = effects.loc[effects["word"] != clustering.FINE, "case"]
    assert len(notable) == accused
    assert len(named) == len(set(named))
    assert set(named) <= set(notable)
    assert (set(named) == set(notable)) == all_listed
    assert ("and more: see cases.tsv" in text.get_text()) != all_listed
    right = axes.get_window_extent().x1
    assert text.get_window_extent().x0 > right


@pytest.mark.usefixtures("layout_only")
@pytest.mark.parametrize(("cases", "refits"), [(12, 0), (12, 4), (100, 20)])
def test_stability_shows_every_case_and_every_refit(
    tmp_path: Path, cases: int, refits: int
) -> None:
    matrix = simulate(cases, cases, (1, 7))
    again = matrix.iloc[:refits] * 0.98
    clusters = clustering.cluster(matrix, bootstraps=2).clusters
    table = stability.stability(matrix, clusters, again, resamples=5).table
    figure = figures.stability(table, tmp_path / "s.png", tmp_path / "s.svg")
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


# Files


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


# Scripts


def run_script(name: str, **fields: Any) -> None:
    job = {
        key: SimpleNamespace(**value) if isinstance(value, dict) else value
        for key, value in fields.items()
    }
    runpy.run_path(
        str(SCRIPTS / "similarity" / name),
        init_globals={"snakemake": SimpleNamespace(**job)},
        run_name="__main__",
    )


def test_the_three_scripts_hand_on_their_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = simulate(9, 12, (2, 5), prefix="00")
    path = tmp_path / "matrix.tsv"
    matrix.to_csv(path, sep="\t", index_label="train_case/test_case")
    tables = {
        "linkage": str(tmp_path / "linkage.tsv"),
        "leaf_order": str(tmp_path / "leaf_order.tsv"),
        "clusters": str(tmp_path / "clusters.tsv"),
        "summary": str(tmp_path / "clustering.json"),
    }
    log = [str(tmp_path / "log.txt")]
    run_script(
        "cluster.py",
        input={"matrix": str(path)},
        output=tables,
        params={
            "similarity": {"region": "mean", "distance": "euclidean"},
            "clusters": {"number": "auto", "min_size": 2, "max_removed_share": 0.3},
        },
        log=log,
    )
    summary = json.loads(Path(tables["summary"]).read_text())
    assert summary["worst_cases"] == ["00002", "00005"]
    assert summary["statement"] in capsys.readouterr().out
    lines = Path(tables["clusters"]).read_text().splitlines()
    assert lines[0] == "case\tcluster\trow_mean\trow_max\tworst"
    assert lines[3].startswith("00002\t")
    assert lines[3].endswith("\ttrue")
    assert lines[1].endswith("\tfalse")
    header = Path(tables["linkage"]).read_text().splitlines()[0]
    assert header == "left\tright\tdistance\tsize"
    for name, params in (("heatmap", {"region": "mean"}), ("dendrogram", {})):
        pictures = {end: str(tmp_path / f"{name}.{end}") for end in ("png", "svg")}
        run_script(
            f"{name}.py",
            input={"matrix": str(path), **tables},
            output=pictures,
            params=params,
            log=log,
        )
        assert all(Path(picture).stat().st_size > 1000 for picture in pictures.values())


def test_nothing_to_compare_is_said_in_words(tmp_path: Path) -> None:
    nothing = pd.DataFrame({"arm": ["worst_cluster"], "mean": [np.nan]})
    nothing = nothing.assign(low=np.nan, high=np.nan)
    paths = (tmp_path / "f.png", tmp_path / "f.svg")
    for figure in (
        figures.removal_forest(nothing, *paths),
        figures.null_distribution(np.nan, [0.1, 0.2], *paths),
        figures.null_distribution(0.1, [], *paths),
    ):
        (text,) = figure.texts
        assert text.get_text().startswith("No ")
        assert not figure.axes
