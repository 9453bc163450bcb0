"""Mean change of each arm on held-out cases, with its interval."""

import math

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from casesim.report import style


def draw(
    table: pd.DataFrame, png: style.Path, svg: style.Path, relevant: float | None = None
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
        return style.empty("No change can be told without held-out cases.", png, svg)
    figure = plt.figure(figsize=(8.5, 0.36 * n + 1.7), layout=style.layout())
    axes = figure.subplots()
    if relevant is not None:
        axes.axvspan(-relevant, relevant, color="#E8E8E8", linewidth=0)
    axes.axvline(0, color="#333333", linewidth=0.9)
    for y, (arm, mean, low, high) in enumerate(
        table[["arm", "mean", "low", "high"]].itertuples(index=False)
    ):
        colour = style.GREY if str(arm).startswith("random") else style.BLUE
        colour = style.VERMILION if arm == "worst_cluster" else colour
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
    axes.set_yticks(range(n), [style.readable(str(arm)) for arm in table["arm"]])
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
    return style.save(figure, png, svg)
