"""Whether other columns and other trainings would name the same worst cluster."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from casesim.report import style


def draw(table: pd.DataFrame, png: style.Path, svg: style.Path) -> Figure:
    """Row means, those of refits beside them, and how often a case is among the worst.

    Args:
        table: from `stability.stability`: `case, worst, row_mean, refit_row_mean,
            worst_share`; drawn with the lowest row mean at the top.
        png, svg: files to write.
    """
    ranked = table.sort_values(["row_mean", "case"], ignore_index=True)
    n = len(ranked)
    pitch = min(max(10 / n, 0.15), 0.32, style.LONGEST_SIDE / n)
    size, every = style.text_size(pitch)
    figure = plt.figure(figsize=(9.5, n * pitch + 1.9), layout=style.layout())
    left, right = figure.subplots(1, 2, sharey=True)
    rows = np.arange(n)
    colours = np.where(ranked["worst"], style.VERMILION, style.BLUE)
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
    dot = min(36.0, (pitch * style.POINTS * 0.6) ** 2)
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
            text.set(color=style.VERMILION, fontweight="bold")
    left.set_ylabel("fine-tuned on (train case)")
    left.set_xlabel("row mean (Dice, without the own case)")
    right.set_xlabel("share of resamples in the worst cluster")
    right.tick_params(axis="y", length=0)
    left.set_title(
        "Would the same cases be called worst again?", loc="left", weight="bold"
    )
    handles = [
        Line2D([], [], color=colour, marker="o", linestyle="none", label=label)
        for colour, label in (
            (style.VERMILION, "worst cluster"),
            (style.BLUE, "other clusters"),
        )
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
    return style.save(figure, png, svg)
