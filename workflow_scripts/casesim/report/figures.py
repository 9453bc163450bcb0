"""Every plot. Colours tell apart with any colour vision, and never alone.

Each function draws from tables and arrays, writes a PNG and an SVG (whole or not at
all, and the same bytes for the same input), and returns the figure.
"""

import math
import os
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import Bbox
from scipy.cluster import hierarchy

from casesim.similarity import clustering

FloatArray = npt.NDArray[np.float64]
Path = str | os.PathLike[str]

# Okabe & Ito (2008). Vermilion means worst, removed or worsened, and nothing else.
VERMILION = "#D55E00"
BLUE = "#0072B2"
GREEN = "#009E73"
ORANGE = "#E69F00"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
GREY = "#8C8C8C"
UNDEFINED = "#BDBDBD"
CLUSTER_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, "#5D4A8A", "#7A6A00", "#333333")
LABEL_COLOURS = (GREEN, SKY, ORANGE, PURPLE, BLUE)

DICE_COLOURS = "viridis"
MOST_GALLERY_CASES = 24
LONGEST_SIDE = 40.0  # inches; beyond it not every row has a name
SMALLEST_TEXT = 6.0  # points
POINTS = 72.0  # in an inch

METRIC_NAMES = {
    "euclidean": "Euclidean distance between rows",
    "correlation": "1 - correlation between rows",
    "dice": "1 - symmetrised Dice",
}


def _save(figure: Figure, png: Path, svg: Path, dpi: int = 150) -> Figure:
    from casesim.files import atomic_path

    # Without salt and date, SVG ids and files would differ from run to run.
    try:
        with mpl.rc_context({"svg.hashsalt": "casesim"}):
            with atomic_path(png) as temporary:
                figure.savefig(temporary, dpi=dpi, metadata={"Software": None})
            with atomic_path(svg) as temporary:
                figure.savefig(temporary, dpi=dpi, metadata={"Date": None})
    finally:
        plt.close(figure)
    return figure


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)


def _extent(text: Text) -> Bbox:
    """Where a text is drawn, in inches from the figure's lower left corner."""
    figure = text.get_figure(root=True)
    assert figure is not None
    box = text.get_window_extent()
    return Bbox(box.get_points() / figure.dpi)


def _widest(texts: Sequence[Text]) -> float:
    return max((_extent(text).width for text in texts), default=0.0)


def _highest(texts: Sequence[Text]) -> float:
    return max((_extent(text).height for text in texts), default=0.0)


def _text_size(pitch: float, largest: float = 9.0) -> tuple[float, int]:
    """Font size in points for labels `pitch` inches apart; every how many to draw.

    Names are left out only where they would run into each other at the smallest size.
    """
    every = max(1, math.ceil(SMALLEST_TEXT * 1.25 / POINTS / pitch - 1e-9))
    return min(largest, pitch * every * POINTS / 1.25), every


def cluster_colours(clusters: pd.DataFrame) -> dict[int, str]:
    """A colour for each cluster: neighbours differ, the worst is vermilion.

    Args:
        clusters: with columns `cluster` and `worst`.
    """
    worst = set(clusters.loc[clusters["worst"], "cluster"])
    names = sorted(int(name) for name in clusters["cluster"].unique())
    others = [name for name in names if name not in worst]
    colours = {
        name: CLUSTER_COLOURS[i % len(CLUSTER_COLOURS)] for i, name in enumerate(others)
    }
    return {name: colours.get(name, VERMILION) for name in names}


def _cluster_key(clusters: pd.DataFrame, most: int = 12) -> list[Patch]:
    colours = cluster_colours(clusters)
    key = []
    for name, colour in colours.items():
        members = clusters[clusters["cluster"] == name]
        worst = bool(members["worst"].any())
        if len(colours) > most and not worst:
            continue
        cases = "case" if len(members) == 1 else "cases"
        text = f"{'worst: ' if worst else ''}cluster {name}, {len(members)} {cases}"
        mean = members["row_mean"].mean()
        key.append(Patch(color=colour, label=f"{text}\nmean Dice {mean:.2f}"))
    if len(colours) > most:
        key.append(Patch(color="none", label=f"{len(colours)} clusters in all"))
    return key


# --- Similarity matrix ----------------------------------------------------------------


def column_order(matrix: pd.DataFrame, rows_in_leaf_order: Sequence[str]) -> list[str]:
    """Train cases in leaf order, then the other cases by UPGMA of their columns.

    Where rows and columns are the same cases, the diagonal so joins the corners.
    """
    own = [case for case in rows_in_leaf_order if case in matrix.columns]
    others = [case for case in matrix.columns if case not in set(own)]
    if len(others) > 2 and not matrix[others].isna().all(axis=None):
        condensed = clustering.distances(matrix[others].T)
        tree = clustering.upgma(condensed)
        others = [others[leaf] for leaf in clustering.leaf_order(tree)]
    return own + others


def heatmap(
    matrix: pd.DataFrame,
    tree: FloatArray,
    clusters: pd.DataFrame,
    png: Path,
    svg: Path,
    region: str = "mean",
) -> Figure:
    """The similarity matrix in leaf order (Figure 2a of the paper).

    Args:
        matrix: (train cases, pool cases), Dice, NaN where undefined.
        tree: linkage whose leaf i is row i of `clusters`.
        clusters: `case, cluster, row_mean, worst`.
        png, svg: files to write.
        region: for the title.
    """
    order = clustering.leaf_order(tree)
    ranked = clusters.iloc[order]
    cases = ranked["case"].tolist()
    columns = column_order(matrix, cases)
    data = matrix.loc[clusters["case"].tolist(), columns]
    n_rows, n_columns = data.shape
    cell = min(max(10 / max(n_rows, n_columns), 0.135), 0.42)
    cell = min(cell, LONGEST_SIDE / max(n_rows, n_columns))
    # Square cells, except where so few would leave no room for the axis titles.
    cells = max(cell, 2.4 / n_columns), max(cell, 2.4 / n_rows)
    sizes = [_text_size(side) for side in cells]
    colours = cluster_colours(clusters)
    with mpl.rc_context({"figure.dpi": 100}):
        grid = sns.clustermap(
            data,
            row_linkage=tree,
            col_cluster=False,
            row_colors=[colours[name] for name in clusters["cluster"]],
            cmap=DICE_COLOURS,
            vmin=0,
            vmax=1,
            mask=data.isna(),
            xticklabels=sizes[0][1],
            yticklabels=sizes[1][1],
            rasterized=True,
            tree_kws={"colors": "#333333", "linewidths": 0.9},
            figsize=(8, 8),
        )
    axes: Axes = grid.ax_heatmap
    axes.set_facecolor(UNDEFINED)
    grid.ax_row_colors.set(xticks=[], yticks=[])
    worst = set(ranked.loc[ranked["worst"], "case"])
    for texts, (size, _) in zip(
        (axes.get_xticklabels(), axes.get_yticklabels()), sizes, strict=True
    ):
        for text in texts:
            text.set_fontsize(size)
            if text.get_text() in worst:
                text.set(color=VERMILION, fontweight="bold")
    plt.setp(axes.get_xticklabels(), rotation=90)
    plt.setp(axes.get_yticklabels(), rotation=0)
    axes.tick_params(length=2, pad=2)
    axes.set_xlabel("evaluated on (test case)", fontsize=11)
    axes.set_ylabel("fine-tuned on (train case)", fontsize=11)
    _mark_rows(axes, ranked)
    _number_clusters(grid.ax_row_colors, ranked, cells[1])
    square = sum(case in set(cases) for case in columns)
    if 0 < square < n_columns:
        axes.axvline(square, color="white", linewidth=2.5)
    key: list[Any] = _cluster_key(clusters)
    if data.isna().to_numpy().any():
        key.append(Patch(color=UNDEFINED, label="undefined: region\nin neither mask"))
    bar = "Dice (mean over labels)" if region == "mean" else f"Dice ({region})"
    grid.ax_cbar.set_ylabel(bar, fontsize=10)
    grid.ax_cbar.yaxis.set_label_position("right")
    head = 0.75 if 0 < square < n_columns else 0.5
    _place_heatmap(grid, n_columns * cells[0], n_rows * cells[1], key, head)
    grid.figure.text(
        0.2 / grid.figure.get_figwidth(),
        1 - 0.15 / grid.figure.get_figheight(),
        f"Similarity matrix: {_region_name(region)}",
        va="top",
        fontsize=13,
        fontweight="bold",
    )
    if 0 < square < n_columns:
        _name_blocks(axes, square, n_columns, cells[0])
    return _save(grid.figure, png, svg)


def _mark_rows(axes: Axes, ranked: pd.DataFrame) -> None:
    marked = np.flatnonzero(ranked["worst"].to_numpy())
    if len(marked) == 0:
        return
    # A cluster is contiguous in leaf order. White beneath, to stand out on any Dice.
    for colour, width in (("white", 4.5), (VERMILION, 2.5)):
        frame = Rectangle(
            (0, float(marked[0])),
            axes.get_xlim()[1],
            len(marked),
            fill=False,
            edgecolor=colour,
            linewidth=width,
            clip_on=False,
            zorder=5,
        )
        axes.add_patch(frame)


def _number_clusters(strip: Axes, ranked: pd.DataFrame, cell: float) -> None:
    names = ranked["cluster"].to_numpy()
    for name in pd.unique(names):
        rows = np.flatnonzero(names == name)
        if len(rows) * cell * POINTS >= 9:
            strip.text(
                0.5,
                rows.mean() + 0.5,
                str(name),
                ha="center",
                va="center",
                color="white",
                fontsize=8,
                fontweight="bold",
            )


def _place_heatmap(
    grid: Any, width: float, height: float, key: list[Any], head: float
) -> None:
    """Put every part where it has room: positions in inches, names measured first."""
    axes, figure = grid.ax_heatmap, grid.figure

    figure.set_layout_engine("none")
    # The names must be measured at their real size, which does not depend on positions.
    figure.canvas.draw()
    names = _widest(axes.get_yticklabels())
    foot = _highest(axes.get_xticklabels())
    legend = figure.legend(
        handles=key, fontsize=8.5, frameon=False, borderpad=0, title="row clusters"
    )
    legend.get_title().set_fontweight("bold")
    legend._legend_box.align = "left"
    box = legend.get_window_extent()
    key_width, key_height = box.width / figure.dpi, box.height / figure.dpi
    edge, tree_width, strip_width, gap = 0.2, 1.3, 0.24, 0.06
    bar_height = 1.7
    left = edge + tree_width + strip_width + 2 * gap
    side = left + width + names + 0.55
    bottom = edge + foot + 0.45
    needed = key_height + bar_height + 0.6
    bottom += max(0.0, needed - height - foot - 0.2)
    total = (side + max(key_width, 1.25) + edge, bottom + height + head)
    figure.set_size_inches(*total)

    def place(part: Any, x: float, y: float, w: float, h: float) -> None:
        part.set_position(
            (x / total[0], y / total[1], w / total[0], h / total[1]), which="both"
        )

    place(axes, left, bottom, width, height)
    place(grid.ax_row_colors, left - strip_width - gap, bottom, strip_width, height)
    place(grid.ax_row_dendrogram, edge, bottom, tree_width, height)
    top = bottom + height
    legend.set_loc("upper left")
    legend.set_bbox_to_anchor((side / total[0], top / total[1]))
    place(grid.ax_cbar, side, top - key_height - 0.35 - bar_height, 0.2, bar_height)


def _name_blocks(axes: Axes, square: int, columns: int, cell: float) -> None:
    for start, end, name in (
        (0, square, "train cases, in leaf order"),
        (square, columns, "other pool cases"),
    ):
        text = axes.annotate(
            name,
            ((start + end) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=10,
        )
        if _extent(text).width > (end - start) * cell:
            text.remove()


# --- Dendrogram -----------------------------------------------------------------------


def dendrogram(
    tree: FloatArray,
    clusters: pd.DataFrame,
    png: Path,
    svg: Path,
    metric: str = "euclidean",
    cut_distance: float | None = None,
    support: Sequence[float | None] | None = None,
) -> Figure:
    """The tree of the train cases (Figure 2b of the paper), in the heat map's order.

    Args:
        tree: linkage whose leaf i is row i of `clusters`.
        clusters: `case, cluster, row_mean, worst`.
        png, svg: files to write.
        metric: names the distance axis.
        cut_distance: where the tree is cut, drawn as a dashed line.
        support: share of bootstrap trees in which each merge survives, in the order of
            the linkage; None or NaN is not drawn. It is written at the clusters of the
            cut, and elsewhere from 0.5 on, unless it would cover a higher merge's.
    """
    n = len(clusters)
    colours = cluster_colours(clusters)
    names = clusters["cluster"].to_numpy()
    members = clustering.node_leaves(tree)

    def link_colour(node: int) -> str:
        inside = {int(names[leaf]) for leaf in members[node - n]}
        return colours[inside.pop()] if len(inside) == 1 else "#333333"

    pitch = min(max(0.14, 6 / n), 0.3)
    pitch = min(pitch, LONGEST_SIDE / n)
    size, every = _text_size(pitch)
    figure = plt.figure(figsize=(9.5, max(n * pitch + 1.6, 4.2)), layout=_layout())
    axes = figure.subplots()
    with mpl.rc_context({"lines.linewidth": 1.4}), warnings.catch_warnings():
        # Where all rows are equal, scipy warns of an axis that is set below.
        warnings.filterwarnings("ignore", "Attempting to set identical low and high")
        drawn = hierarchy.dendrogram(
            tree,
            orientation="left",
            ax=axes,
            link_color_func=link_colour,
            labels=clusters["case"].tolist(),
            leaf_font_size=size,
        )
    leaves = drawn["leaves"] or []
    axes.invert_yaxis()
    tallest = float(tree[-1, 2]) or 1.0
    axes.set_xlim(tallest * 1.08, -tallest * 0.015)
    worst = set(clusters.loc[clusters["worst"], "case"])
    _colour_leaves(axes, leaves, names, colours, pitch)
    for i, text in enumerate(axes.get_yticklabels()):
        if text.get_text() in worst:
            text.set(color=VERMILION, fontweight="bold")
        elif i % every:
            text.set_visible(False)
    axes.spines[["left", "top", "right"]].set_visible(False)
    key: list[Any] = _cluster_key(clusters)
    if cut_distance is not None:
        axes.axvline(cut_distance, color="black", linestyle="--", linewidth=1)
        label = f"cut into {len(colours)}"
        key.append(Line2D([], [], color="black", linestyle="--", lw=1, label=label))
    axes.set_xlabel(f"{METRIC_NAMES.get(metric, metric)} (UPGMA)", fontsize=11)
    axes.set_ylabel("train case", fontsize=11)
    axes.yaxis.set_label_position("right")
    axes.set_title("Train cases by similarity of their rows", loc="left", weight="bold")
    known = support is not None and any(
        value is not None and math.isfinite(value) for value in support
    )
    if known:
        label = (
            "numbers: % of bootstrap\ntrees with this cluster\n"
            "(within clusters: from 50)"
        )
        key.append(Patch(color="none", label=label))
    figure.legend(handles=key, loc="outside right upper", fontsize=8.5, frameon=False)
    if known:
        assert support is not None
        figure.canvas.draw()
        clusters_of_cut = {
            frozenset(np.flatnonzero(names == name).tolist()) for name in colours
        }
        wanted = [
            inside in clusters_of_cut or (share is not None and share >= 0.5)
            for inside, share in zip(members, support, strict=True)
        ]
        _write_support(axes, tree, leaves, support, wanted)
    return _save(figure, png, svg)


def _colour_leaves(
    axes: Axes,
    leaves: Sequence[int],
    names: npt.NDArray[Any],
    colours: Mapping[int, str],
    pitch: float,
) -> None:
    heights = 5 + 10 * np.arange(len(leaves))
    axes.scatter(
        np.zeros(len(leaves)),
        heights,
        c=[colours[int(names[leaf])] for leaf in leaves],
        marker="s",
        s=(min(pitch * 0.7, 0.11) * POINTS) ** 2,
        clip_on=False,
        zorder=4,
    )


def _write_support(
    axes: Axes,
    tree: FloatArray,
    leaves: Sequence[int],
    support: Sequence[float | None],
    wanted: Sequence[bool],
) -> None:
    n = len(tree) + 1
    # scipy puts the leaves at 5, 15, 25, ... and each merge halfway between its parts.
    at = {leaf: 5.0 + 10 * position for position, leaf in enumerate(leaves)}
    for i, (left, right) in enumerate(tree[:, :2].astype(int)):
        at[n + i] = (at[left] + at[right]) / 2
    taken: list[Bbox] = []
    for i in reversed(range(n - 2)):  # the root is in every tree
        share = support[i]
        if not wanted[i] or share is None or not math.isfinite(share):
            continue
        text = axes.annotate(
            f"{100 * share:.0f}",
            (tree[i, 2], at[n + i]),
            xytext=(-3, 1.5),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=7.5,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )
        box = text.get_window_extent()
        if any(box.overlaps(other) for other in taken):
            text.remove()
        else:
            taken.append(box)


# --- Before and after -----------------------------------------------------------------

MOST_RANDOM_ROWS = 3


def _readable(arm: str) -> str:
    return arm.replace("_", " ")


def pair_table(table: pd.DataFrame, region: str = "mean") -> pd.DataFrame:
    """Per arm and case, means and ranges over seeds: what `comparison` draws.

    More than three random arms become one arm `random (R arms)`, their mean and range;
    a case counts in the arms that kept it. Pairs in which one of the two is undefined
    are left out.

    Args:
        table: `comparison.tsv`.
        region: which rows of it.

    Returns:
        `arm, case, role, removed, before, after, before_low, before_high, after_low,
        after_high`.
    """
    rows = table[table["region"] == region].dropna(subset=["dice_before", "dice_after"])
    random = rows["arm"].str.startswith("random_")
    number = rows.loc[random, "arm"].nunique()
    if number > MOST_RANDOM_ROWS:
        # Each random arm removes other cases; kept and removed are never mixed.
        rows = rows.assign(arm=rows["arm"].mask(random, f"random ({number} arms)"))
        rows = rows[~(random & rows["removed"].astype(bool))]
    grouped = rows.groupby(["arm", "case"], sort=False)
    return grouped.agg(
        role=("role", "first"),
        removed=("removed", "any"),
        before=("dice_before", "mean"),
        after=("dice_after", "mean"),
        before_low=("dice_before", "min"),
        before_high=("dice_before", "max"),
        after_low=("dice_after", "min"),
        after_high=("dice_after", "max"),
    ).reset_index()


def comparison(
    table: pd.DataFrame, png: Path, svg: Path, region: str = "mean"
) -> Figure:
    """Dice before and after the removals, case by case (Figure 1 of the paper).

    One row of panels for each arm, pool cases on the left, held-out cases apart on the
    right. Cases are ordered by their Dice before.

    Args:
        table: `comparison.tsv`: `arm, case, role, removed, region, dice_before,
            dice_after`, with one row per seed where there are several.
        png, svg: files to write.
        region: which Dice.
    """
    pairs = pair_table(table, region)
    if pairs.empty:
        return _empty("No case has a defined Dice before and after.", png, svg)
    before = pairs.groupby("case")["before"].mean()
    roles = pairs.groupby("case")["role"].first()
    groups = {}
    for role, name in (("pool", "pool case"), ("held_out", "held-out case")):
        chosen = before[roles == role].sort_index().sort_values(kind="stable")
        if len(chosen):
            groups[role] = (name, chosen.index.tolist())
    arms = pairs["arm"].unique().tolist()
    counts = [len(cases) for _, cases in groups.values()]
    pitch = min(max(11 / sum(counts), 0.13), 0.4)
    pitch = min(pitch, 24 / sum(counts))
    least = 2.6  # inches, so that the title of a small panel has room
    widths = [max(count * pitch, least) for count in counts]
    figure = plt.figure(
        figsize=(max(sum(widths) + 1.6, 7.5), 2.6 * len(arms) + 1.9),
        layout=_layout(),
    )
    panels = figure.subplots(
        len(arms), len(groups), sharey=True, squeeze=False, width_ratios=widths
    )
    lowest = pairs[["before_low", "after_low"]].to_numpy(float).min()
    floor = max(0.0, math.floor(lowest * 10 - 0.5) / 10)
    spread = bool(
        (pairs["after_high"] > pairs["after_low"]).any()
        or (pairs["before_high"] > pairs["before_low"]).any()
    )
    for i, (row, arm) in enumerate(zip(panels, arms, strict=True)):
        for axes, (role, (name, cases)) in zip(row, groups.items(), strict=True):
            here = pairs[(pairs["arm"] == arm) & (pairs["role"] == role)]
            _pairs_panel(axes, here.set_index("case"), cases, pitch)
            axes.set_title(_mean_changes(here, role), fontsize=9.5, loc="left")
            axes.set_ylim(floor - 0.02, 1.02)
            if i == len(arms) - 1:
                axes.set_xlabel(f"{name} (ordered by Dice before)", fontsize=10)
            else:
                axes.tick_params(labelbottom=False)
        row[0].set_ylabel(f"{_readable(arm)}\nDice", fontsize=10)
    figure.suptitle(
        f"Before and after the removal: {_region_name(region)}", weight="bold"
    )
    figure.legend(
        handles=_pair_key(spread, bool(pairs["removed"].any())),
        loc="outside lower center",
        ncols=3 if figure.get_figwidth() < 9 else 6,
        fontsize=9,
        frameon=False,
    )
    return _save(figure, png, svg)


def _region_name(region: str) -> str:
    return "mean Dice over labels" if region == "mean" else f"Dice of {region}"


def _empty(message: str, png: Path, svg: Path) -> Figure:
    figure = plt.figure(figsize=(7, 2))
    figure.text(0.5, 0.5, message, ha="center", va="center")
    return _save(figure, png, svg)


def _mean_changes(here: pd.DataFrame, role: str) -> str:
    change = here["after"] - here["before"]
    if role == "held_out":
        return f"held out, n = {len(here)}: mean change {change.mean():+.3f}"
    removed = here["removed"].astype(bool)
    text = f"kept, n = {(~removed).sum()}: {change[~removed].mean():+.3f}"
    if removed.any():
        text += f"; removed, n = {removed.sum()}: {change[removed].mean():+.3f}"
    return text


def _pairs_panel(
    axes: Axes, here: pd.DataFrame, cases: Sequence[str], pitch: float
) -> None:
    place = {case: i for i, case in enumerate(cases)}
    x = np.array([place[case] for case in here.index])
    before, after = here["before"].to_numpy(), here["after"].to_numpy()
    colours = [
        BLUE if b >= a else VERMILION for a, b in zip(before, after, strict=True)
    ]
    marker = min(6.5, max(2.2, pitch * POINTS * 0.45))
    for position in x[here["removed"].to_numpy(dtype=bool)]:
        axes.axvspan(position - 0.5, position + 0.5, color="#E3E3E3", linewidth=0)
    for low, high, shade in (
        (here["before_low"], here["before_high"], GREY),
        (here["after_low"], here["after_high"], colours),
    ):
        axes.vlines(x, low, high, color=shade, linewidth=marker * 0.8, alpha=0.3)
    axes.vlines(x, before, after, color=colours, linewidth=1.3)
    axes.scatter(
        x,
        before,
        s=marker**2,
        facecolor="none",
        edgecolor="#333333",
        linewidth=1,
        zorder=5,
    )
    # The direction is in the shape too, for who does not see the colours.
    rising = after >= before
    for chosen, shape, colour in ((rising, "^", BLUE), (~rising, "v", VERMILION)):
        axes.scatter(
            x[chosen], after[chosen], s=marker**2, marker=shape, color=colour, zorder=4
        )
    size, every = _text_size(pitch, 8.5)
    shown = [i for i in range(len(cases)) if i % every == 0]
    axes.set_xticks(shown, [cases[i] for i in shown], rotation=90, fontsize=size)
    axes.set_xlim(-0.6, len(cases) - 0.4)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _pair_key(spread: bool, removed: bool) -> list[Any]:
    def mark(shape: str, colour: str, fill: str, label: str) -> Line2D:
        return Line2D(
            [],
            [],
            linestyle="none",
            marker=shape,
            color=colour,
            markerfacecolor=fill,
            label=label,
        )

    key: list[Any] = [
        mark("o", "#333333", "none", "before: all pool cases"),
        mark("^", BLUE, BLUE, "after: better"),
        mark("v", VERMILION, VERMILION, "after: worse"),
    ]
    if removed:
        key.append(Patch(color="#E3E3E3", label="removed from training"))
    if spread:
        key.append(Patch(color=GREY, alpha=0.4, label="range over seeds or arms"))
    return key


# --- Images ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Overlay:
    """One case before and after, on one grid, (z, y, x) in LPS order, axial slices.

    Attributes:
        title: such as the case id and its change of Dice.
        image: FLAIR.
        reference, before, after: label maps.
        spacing: (z, y, x) in mm.
    """

    title: str
    image: npt.NDArray[Any]
    reference: npt.NDArray[Any]
    before: npt.NDArray[Any]
    after: npt.NDArray[Any]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)


def disagreeing_slice(overlay: Overlay) -> int:
    """The slice in which before and after differ in most voxels.

    Where they are equal, the one in which they differ most from the reference, and then
    the one with most lesion; the lowest where that ties.
    """
    for different in (
        overlay.before != overlay.after,
        overlay.before != overlay.reference,
        overlay.reference > 0,
    ):
        voxels = different.sum(axis=(1, 2))
        if voxels.any():
            return int(voxels.argmax())
    return len(overlay.image) // 2


def overlays(
    cases: Sequence[Overlay], labels: Mapping[str, int], png: Path, svg: Path
) -> Figure:
    """FLAIR with the reference, the model before and the model after, one row per case.

    Args:
        cases: such as the most improved and the most worsened one.
        labels: foreground label name to number.
        png, svg: files to write.
    """
    if not cases:
        return _empty("No case to show: nothing was compared.", png, svg)
    figure = plt.figure(figsize=(9.6, 3.35 * len(cases) + 0.6), layout=_layout())
    panels = figure.subplots(len(cases), 3, squeeze=False)
    colours = _label_colours(labels)
    for row, case in zip(panels, cases, strict=True):
        number = disagreeing_slice(case)
        box = _head_box(case.image[number])
        for axes, name, mask in zip(
            row,
            ("reference", "before", "after"),
            (case.reference, case.before, case.after),
            strict=True,
        ):
            _slice(axes, case.image[number], mask[number], colours, box, case.spacing)
            axes.set_title(name, fontsize=10)
        row[0].set_ylabel(f"{case.title}\naxial slice {number}", fontsize=10)
    _label_key(figure, labels, colours)
    return _save(figure, png, svg)


@dataclass(frozen=True)
class GalleryCase:
    """One case for `cohort_gallery`: (z, y, x) in LPS order.

    Attributes:
        title: case id, and whatever should stand beside it.
        images: channel name to image, one or two of them.
        label: label map.
        spacing: (z, y, x) in mm.
    """

    title: str
    images: Mapping[str, npt.NDArray[Any]]
    label: npt.NDArray[Any]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)


def cohort_gallery(
    cases: Sequence[GalleryCase], labels: Mapping[str, int], png: Path, svg: Path
) -> Figure:
    """A montage of at most 24 cases with label contours.

    Each case is shown in the slice with most lesion.

    Raises:
        ValueError: no case, or more than 24.
    """
    if not 1 <= len(cases) <= MOST_GALLERY_CASES:
        raise ValueError(f"a gallery shows 1 to {MOST_GALLERY_CASES} cases")
    across = min(4, len(cases))
    down = math.ceil(len(cases) / across)
    figure = plt.figure(
        figsize=(max(3.5 * across, 6), 2.4 * down + 0.7), layout=_layout()
    )
    lines = max(case.title.count("\n") for case in cases)
    cells = figure.subfigures(down, across, squeeze=False)
    colours = _label_colours(labels)
    for case, cell in zip(cases, cells.flat, strict=False):
        number = int((case.label > 0).sum(axis=(1, 2)).argmax())
        box = _head_box(next(iter(case.images.values()))[number])
        panels = cell.subplots(1, len(case.images), squeeze=False)[0]
        for axes, (name, image) in zip(panels, case.images.items(), strict=True):
            _slice(axes, image[number], case.label[number], colours, box, case.spacing)
            axes.set_xlabel(name, fontsize=8)
        # As many lines everywhere, so that all images get the same size.
        missing = lines - case.title.count("\n")
        cell.suptitle(case.title + "\n" * missing, fontsize=10)
    _label_key(figure, labels, colours)
    return _save(figure, png, svg)


def _label_colours(labels: Mapping[str, int]) -> dict[int, str]:
    return {
        number: LABEL_COLOURS[i % len(LABEL_COLOURS)]
        for i, number in enumerate(sorted(labels.values()))
    }


def _label_key(
    figure: Figure, labels: Mapping[str, int], colours: Mapping[int, str]
) -> None:
    handles = [
        Line2D([], [], color=colours[number], lw=2.5, label=_readable(name))
        for name, number in sorted(labels.items(), key=lambda item: item[1])
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        fontsize=10,
        frameon=False,
    )


def _head_box(image: npt.NDArray[Any]) -> tuple[slice, slice]:
    """Rows and columns of what is not background, with a margin of two voxels."""
    inside = np.argwhere(image != image[0, 0])
    if len(inside) == 0:
        return slice(None), slice(None)
    low = np.maximum(inside.min(axis=0) - 2, 0)
    high = inside.max(axis=0) + 3
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def _slice(
    axes: Axes,
    image: npt.NDArray[Any],
    mask: npt.NDArray[Any],
    colours: Mapping[int, str],
    box: tuple[slice, slice],
    spacing: tuple[float, float, float],
) -> None:
    image, mask = image[box], mask[box]
    brain = image[image != image.min()]
    low, high = np.percentile(brain, [1, 99]) if brain.size else (0.0, 1.0)
    axes.imshow(
        image,
        cmap="gray",
        vmin=min(float(image.min()), float(low)),
        vmax=1.1 * float(high),
        aspect=spacing[1] / spacing[2],
        interpolation="nearest",
    )
    for number, colour in colours.items():
        if (mask == number).any():
            # A frame of zeros closes the contours of what touches the border.
            padded = np.pad((mask == number).astype(float), 1)
            axes.contour(
                np.arange(-1, mask.shape[1] + 1),
                np.arange(-1, mask.shape[0] + 1),
                padded,
                levels=[0.5],
                colors=[colour],
                linewidths=1.5,
            )
    axes.set(xticks=[], yticks=[])
    axes.set_xlim(-0.5, mask.shape[1] - 0.5)
    axes.set_ylim(mask.shape[0] - 0.5, -0.5)
    axes.spines[:].set_visible(False)


# --- Evidence -------------------------------------------------------------------------


def null_distribution(
    observed: float,
    random: npt.ArrayLike,
    png: Path,
    svg: Path,
    p: float | None = None,
    floor: float | None = None,
    arm: str = "worst_cluster",
) -> Figure:
    """The change of an arm among those of the random arms.

    Args:
        observed: mean change of Dice on held-out cases of the arm.
        random: those of the random arms.
        png, svg: files to write.
        p: permutation p of the arm.
        floor: the smallest p that this number of random arms can give.
        arm: name of the arm.
    """
    values = np.sort(np.asarray(random, dtype=float))
    if np.isnan(observed):
        return _empty("No change can be told without held-out cases.", png, svg)
    if not len(values):
        return _empty("No random arms to compare with.", png, svg)
    figure = plt.figure(figsize=(8, 3.4), layout=_layout())
    axes = figure.subplots()
    if len(values) >= 20:
        axes.hist(values, bins="auto", color="#C8C8C8", edgecolor="white", zorder=1)
        axes.set_ylabel("random arms")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        # Too few for a histogram: one dot each, stacked where they would overlap.
        reach = max(float(np.ptp([*values, observed, 0.0])), 1e-9) / 60
        heights: list[int] = []
        for i, value in enumerate(values):
            near = [heights[j] for j in range(i) if value - values[j] < reach]
            level = next(h for h in range(len(near) + 1) if h not in near)
            heights.append(level)
        axes.scatter(values, np.array(heights) + 0.5, s=55, color=GREY, zorder=3)
        axes.set_ylim(0, max([*heights, 2]) + 1)
        axes.set_yticks([])
    axes.axvline(0, color="#333333", linewidth=0.9, linestyle=":")
    axes.axvline(observed, color=VERMILION, linewidth=2.2, zorder=4)
    handles: list[Any] = [
        Line2D(
            [], [], color=VERMILION, lw=2.2, label=f"{_readable(arm)} {observed:+.3f}"
        ),
        Line2D(
            [],
            [],
            color="#C8C8C8" if len(values) >= 20 else GREY,
            marker="s" if len(values) >= 20 else "o",
            linestyle="none",
            label=f"random arms (R = {len(values)})",
        ),
        Line2D([], [], color="#333333", lw=0.9, ls=":", label="no change"),
    ]
    if p is not None:
        text = f"p = {p:.3g}"
        if floor is not None:
            text += f"\n(at best {floor:.3g} with R = {len(values)})"
        handles.append(Patch(color="none", label=text))
    figure.legend(handles=handles, loc="outside right upper", fontsize=9, frameon=False)
    axes.set_xlabel("mean change of Dice on held-out cases")
    axes.set_title("Chosen against random removals", loc="left", weight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    return _save(figure, png, svg)


def removal_forest(
    table: pd.DataFrame, png: Path, svg: Path, relevant: float | None = None
) -> Figure:
    """Mean change of each arm with its interval.

    Args:
        table: `arm, mean, low, high`, one row per arm, drawn from top to bottom; NaN
            bounds are not drawn.
        png, svg: files to write.
        relevant: changes smaller than this are shaded as too small to matter.
    """
    n = len(table)
    if table["mean"].isna().all():
        return _empty("No change can be told without held-out cases.", png, svg)
    figure = plt.figure(figsize=(8.5, 0.36 * n + 1.7), layout=_layout())
    axes = figure.subplots()
    if relevant is not None:
        axes.axvspan(-relevant, relevant, color="#E8E8E8", linewidth=0)
    axes.axvline(0, color="#333333", linewidth=0.9)
    for y, (arm, mean, low, high) in enumerate(
        table[["arm", "mean", "low", "high"]].itertuples(index=False)
    ):
        colour = GREY if str(arm).startswith("random") else BLUE
        colour = VERMILION if arm == "worst_cluster" else colour
        axes.hlines(y, low, high, color=colour, linewidth=2)
        axes.scatter([mean], [y], color=colour, s=42, zorder=3)
        text = f"{mean:+.3f}"
        if math.isfinite(low) and math.isfinite(high):
            text += f"  [{low:+.3f}, {high:+.3f}]"
        axes.annotate(
            text,
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(range(n), [_readable(str(arm)) for arm in table["arm"]])
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_xlabel("mean change of Dice on held-out cases, with interval")
    axes.set_title("What each removal does", loc="left", weight="bold")
    axes.spines[["top", "right", "left"]].set_visible(False)
    if relevant is not None:
        figure.legend(
            handles=[
                Patch(color="#E8E8E8", label=f"below {relevant:g}: too small to matter")
            ],
            loc="outside lower right",
            fontsize=9,
            frameon=False,
        )
    return _save(figure, png, svg)


def stability(table: pd.DataFrame, png: Path, svg: Path) -> Figure:
    """Row means, those of refits beside them, and how often a case is among the worst.

    Args:
        table: from `stability.stability`: `case, worst, row_mean, refit_row_mean,
            worst_share`; drawn with the lowest row mean at the top.
        png, svg: files to write.
    """
    ranked = table.sort_values(["row_mean", "case"], ignore_index=True)
    n = len(ranked)
    pitch = min(max(10 / n, 0.15), 0.32, LONGEST_SIDE / n)
    size, every = _text_size(pitch)
    figure = plt.figure(figsize=(9.5, n * pitch + 1.9), layout=_layout())
    left, right = figure.subplots(1, 2, sharey=True)
    rows = np.arange(n)
    colours = np.where(ranked["worst"], VERMILION, BLUE)
    refitted = ranked["refit_row_mean"].notna().to_numpy()
    for axes in (left, right):
        axes.hlines(rows, 0, 1, color="#EFEFEF", linewidth=0.8, zorder=0)
        axes.set_xlim(0, 1)
        axes.spines[["top", "right"]].set_visible(False)
    left.hlines(
        rows[refitted],
        ranked["row_mean"][refitted],
        ranked["refit_row_mean"][refitted],
        color="#333333",
        linewidth=1.2,
        zorder=2,
    )
    dot = min(36.0, (pitch * POINTS * 0.6) ** 2)
    left.scatter(ranked["row_mean"], rows, s=dot, color=colours, zorder=3)
    left.scatter(
        ranked["refit_row_mean"][refitted],
        rows[refitted],
        s=dot,
        marker="D",
        facecolor="white",
        edgecolor=colours[refitted],
        linewidth=1.2,
        zorder=4,
    )
    right.barh(rows, ranked["worst_share"], height=0.65, color=colours)
    right.xaxis.set_major_formatter(PercentFormatter(1.0))
    left.set_yticks(rows[::every], ranked["case"][::every])
    left.set_ylim(n - 0.4, -0.6)
    for text, is_worst in zip(
        left.get_yticklabels(), ranked["worst"][::every], strict=True
    ):
        text.set_fontsize(size)
        if is_worst:
            text.set(color=VERMILION, fontweight="bold")
    left.set_ylabel("fine-tuned on (train case)")
    left.set_xlabel("row mean (Dice, without the own case)")
    right.set_xlabel("share of resamples in the worst cluster")
    right.tick_params(axis="y", length=0)
    left.set_title(
        "Would the same cases be called worst again?", loc="left", weight="bold"
    )
    handles = [
        Line2D([], [], color=colour, marker="o", linestyle="none", label=label)
        for colour, label in ((VERMILION, "worst cluster"), (BLUE, "other clusters"))
    ]
    if refitted.any():
        handles.append(
            Line2D(
                [],
                [],
                color="#333333",
                marker="D",
                markerfacecolor="white",
                label="fine-tuned again: other seed, other copies",
            )
        )
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        fontsize=9,
        frameon=False,
    )
    return _save(figure, png, svg)


_KIND_NAMES = {"label": "Wrong labels", "image": "Bad images"}


def detection(table: pd.DataFrame, png: Path, svg: Path) -> Figure:
    """How well each score finds the planted defects: AUROC and average precision.

    Args:
        table: from `evidence.detection`; one panel for each kind of defect.
        png, svg: files to write.
    """
    kinds = [kind for kind in _KIND_NAMES if (table["defect"] == kind).any()]
    names = list(dict.fromkeys(table["score"]))
    figure = plt.figure(
        figsize=(1.6 + 4.6 * len(kinds), 0.42 * len(names) + 2.0), layout=_layout()
    )
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        rows = table[table["defect"] == kind].set_index("score").loc[names]
        first = rows.iloc[0]
        axes.axvline(0.5, color="#333333", linewidth=0.9, linestyle=":")
        axes.axvline(
            first["prevalence"], color=ORANGE, linewidth=1.1, linestyle="--", zorder=1
        )
        height = np.arange(len(names))
        axes.hlines(height, 0, 1, color="#E8E8E8", linewidth=0.9, zorder=0)
        axes.scatter(
            rows["average_precision"],
            height,
            color=ORANGE,
            marker="D",
            s=80,  # its corners show where both values are the same
            zorder=3,
            clip_on=False,
        )
        axes.scatter(rows["auroc"], height, color=BLUE, s=34, zorder=4, clip_on=False)
        for y, above in zip(height, rows["controls_above"], strict=True):
            axes.annotate(
                f"{above} of {first['n_controls']}",
                (1.06, y),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=9,
            )
        axes.annotate(
            "controls\nabove",
            (1.06, -0.62),
            xycoords=("axes fraction", "data"),
            va="bottom",
            fontsize=8.5,
            color="#555555",
        )
        axes.set_xlim(0, 1)
        axes.set_title(
            f"{_KIND_NAMES[kind]} ({first['n_defects']} of {first['n_cases']} cases)",
            loc="left",
            weight="bold",
        )
        axes.set_xlabel("AUROC, average precision")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(names)), [_readable(name) for name in names])
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.legend(
        handles=[
            Line2D([], [], color=BLUE, marker="o", ls="none", label="AUROC"),
            Line2D([], [], color="#333333", lw=0.9, ls=":", label="AUROC by chance"),
            Line2D(
                [], [], color=ORANGE, marker="D", ls="none", label="average precision"
            ),
            Line2D(
                [],
                [],
                color=ORANGE,
                lw=1.1,
                ls="--",
                label="average precision by chance",
            ),
        ],
        loc="outside lower center",
        ncols=2 * len(kinds),
        fontsize=9,
        frameon=False,
    )
    return _save(figure, png, svg)


_WORD_STYLE = {
    clustering.WRONG_LABEL: (VERMILION, "v"),
    clustering.BAD_IMAGE: (PURPLE, "X"),
    clustering.RARE: (GREEN, "D"),
    clustering.FINE: (GREY, "o"),
}


def effects_scatter(effects: pd.DataFrame, png: Path, svg: Path) -> Figure:
    """Donor effect (row) against recipient effect (column) of each train case.

    Args:
        effects: from `clustering.case_effects`.
        png, svg: files to write.
    """
    figure = plt.figure(figsize=(9, 6), layout=_layout())
    axes = figure.subplots()
    axes.axhline(0, color="#D0D0D0", linewidth=0.9)
    axes.axvline(0, color="#D0D0D0", linewidth=0.9)
    handles = []
    for word, (colour, shape) in _WORD_STYLE.items():
        chosen = effects[effects["word"] == word]
        axes.scatter(
            chosen["recipient_effect"],
            chosen["donor_effect"],
            color=colour,
            marker=shape,
            s=48,
            zorder=3,
        )
        handles.append(
            Line2D(
                [],
                [],
                color=colour,
                marker=shape,
                linestyle="none",
                label=f"{word} ({len(chosen)})",
            )
        )
    axes.margins(0.12)
    axes.set_xlabel(
        "recipient effect: how much better others segment it than usual (Dice)"
    )
    axes.set_ylabel("donor effect: how much better its model segments others (Dice)")
    axes.set_title(
        "Each train case as donor and as recipient", loc="left", weight="bold"
    )
    axes.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(
        handles=handles, loc="outside right upper", fontsize=9, frameon=False
    )
    figure.canvas.draw()
    notable = effects[effects["word"] != clustering.FINE]
    crowded = _name_points(axes, notable, effects)
    _list_names(
        figure, notable[notable["case"].isin(crowded)], legend.get_window_extent()
    )
    return _save(figure, png, svg)


def _list_names(
    figure: Figure, cases: pd.DataFrame, above: Bbox, most: int = 30
) -> None:
    """Name, below a legend, the cases whose names have no place among the points."""
    if cases.empty:
        return
    lines = ["No room for a name beside the point:"]
    for word, names in cases.groupby("word", sort=False)["case"]:
        lines += textwrap.wrap(
            f"{word} {', '.join(map(str, names))}", 38, break_on_hyphens=False
        )
    if len(lines) > most:
        lines[most - 1 :] = ["and more: see cases.tsv"]
    x, y = figure.transFigure.inverted().transform((above.x0, above.y0))
    figure.text(x + 0.01, y - 0.02, "\n".join(lines), fontsize=8.5, va="top")


def _name_points(axes: Axes, notable: pd.DataFrame, every: pd.DataFrame) -> list[str]:
    """Write case ids beside their points, on a side where nothing is in the way.

    Returns those for which there is no such side.
    """
    frame = axes.get_window_extent()
    taken = []
    for x, y in every[["recipient_effect", "donor_effect"]].dropna().to_numpy():
        centre = axes.transData.transform((x, y))
        taken.append(Bbox.from_bounds(centre[0] - 5, centre[1] - 5, 10, 10))
    sides = (
        (8, 0, "left", "center"),
        (-8, 0, "right", "center"),
        (0, 8, "center", "bottom"),
        (0, -8, "center", "top"),
        (8, 12, "left", "bottom"),
        (-8, -12, "right", "top"),
        (8, -12, "left", "top"),
        (-8, 12, "right", "bottom"),
        (0, 20, "center", "bottom"),
        (0, -20, "center", "top"),
    )
    crowded = []
    columns = ["case", "recipient_effect", "donor_effect"]
    for case, x, y in notable[columns].dropna().itertuples(index=False):
        for dx, dy, across, along in sides:
            text = axes.annotate(
                str(case),
                (x, y),
                xytext=(dx, dy),
                textcoords="offset points",
                ha=across,
                va=along,
                fontsize=8.5,
            )
            box = text.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()
        else:
            crowded.append(case)
    return crowded
