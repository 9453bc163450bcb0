"""The similarity matrix as a heat map, in leaf order (Figure 2a of the paper)."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from casesim.report import style
from casesim.similarity.tree import column_order, leaf_order


def draw(
    matrix: pd.DataFrame,
    tree: style.FloatArray,
    clusters: pd.DataFrame,
    png: style.Path,
    svg: style.Path,
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
    order = leaf_order(tree)
    ranked = clusters.iloc[order]
    cases = ranked["case"].tolist()
    columns = column_order(matrix, cases)
    data = matrix.loc[clusters["case"].tolist(), columns]
    n_rows, n_columns = data.shape
    cell = min(max(10 / max(n_rows, n_columns), 0.135), 0.42)
    cell = min(cell, style.LONGEST_SIDE / max(n_rows, n_columns))
    # Square cells, except where so few would leave no room for the axis titles.
    cells = max(cell, 2.4 / n_columns), max(cell, 2.4 / n_rows)
    sizes = [style.text_size(side) for side in cells]
    colours = style.cluster_colours(clusters)
    with mpl.rc_context({"figure.dpi": 100}):
        grid = sns.clustermap(
            data,
            row_linkage=tree,
            col_cluster=False,
            row_colors=[colours[name] for name in clusters["cluster"]],
            cmap=style.DICE_COLOURS,
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
    axes.set_facecolor(style.UNDEFINED)
    grid.ax_row_colors.set(xticks=[], yticks=[])
    worst = set(ranked.loc[ranked["worst"], "case"])
    for texts, (size, _) in zip(
        (axes.get_xticklabels(), axes.get_yticklabels()), sizes, strict=True
    ):
        for text in texts:
            text.set_fontsize(size)
            if text.get_text() in worst:
                text.set(color=style.VERMILION, fontweight="bold")
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
    key: list[Any] = style.cluster_key(clusters)
    if data.isna().to_numpy().any():
        key.append(
            Patch(color=style.UNDEFINED, label="undefined: region\nin neither mask")
        )
    bar = "Dice (mean over labels)" if region == "mean" else f"Dice ({region})"
    grid.ax_cbar.set_ylabel(bar, fontsize=10)
    grid.ax_cbar.yaxis.set_label_position("right")
    head = 0.75 if 0 < square < n_columns else 0.5
    _place_heatmap(grid, n_columns * cells[0], n_rows * cells[1], key, head)
    grid.figure.text(
        0.2 / grid.figure.get_figwidth(),
        1 - 0.15 / grid.figure.get_figheight(),
        f"Similarity matrix: {style.region_name(region)}",
        va="top",
        fontsize=13,
        fontweight="bold",
    )
    if 0 < square < n_columns:
        _name_blocks(axes, square, n_columns, cells[0])
    return style.save(grid.figure, png, svg)


def _mark_rows(axes: Axes, ranked: pd.DataFrame) -> None:
    marked = np.flatnonzero(ranked["worst"].to_numpy())
    if len(marked) == 0:
        return
    # A cluster is contiguous in leaf order. White beneath, to stand out on any Dice.
    for colour, width in (("white", 4.5), (style.VERMILION, 2.5)):
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
        if len(rows) * cell * style.POINTS >= 9:
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
    names = style.widest(axes.get_yticklabels())
    foot = style.highest(axes.get_xticklabels())
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
        if style.extent(text).width > (end - start) * cell:
            text.remove()
