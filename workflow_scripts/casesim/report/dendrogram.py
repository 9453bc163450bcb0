"""The tree of the train cases (Figure 2b of the paper)."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox
from scipy.cluster import hierarchy

from casesim.report import style
from casesim.similarity.tree import node_leaves

METRIC_NAMES = {
    "euclidean": "Euclidean distance between rows",
    "correlation": "1 - correlation between rows",
    "dice": "1 - symmetrised Dice",
}


def draw(
    tree: style.FloatArray,
    clusters: pd.DataFrame,
    png: style.Path,
    svg: style.Path,
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
    colours = style.cluster_colours(clusters)
    names = clusters["cluster"].to_numpy()
    members = node_leaves(tree)

    def link_colour(node: int) -> str:
        inside = {int(names[leaf]) for leaf in members[node - n]}
        return colours[inside.pop()] if len(inside) == 1 else "#333333"

    pitch = min(max(0.14, 6 / n), 0.3)
    pitch = min(pitch, style.LONGEST_SIDE / n)
    size, every = style.text_size(pitch)
    figure = plt.figure(figsize=(9.5, max(n * pitch + 1.6, 4.2)), layout=style.layout())
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
            text.set(color=style.VERMILION, fontweight="bold")
        elif i % every:
            text.set_visible(False)
    axes.spines[["left", "top", "right"]].set_visible(False)
    key: list[Any] = style.cluster_key(clusters)
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
    return style.save(figure, png, svg)


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
        s=(min(pitch * 0.7, 0.11) * style.POINTS) ** 2,
        clip_on=False,
        zorder=4,
    )


def _write_support(
    axes: Axes,
    tree: style.FloatArray,
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
