"""The change of an arm among those of random arms of its size."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from casesim.report import style


def draw(
    observed: float,
    random: npt.ArrayLike,
    png: style.Path,
    svg: style.Path,
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
        return style.empty("No change can be told without held-out cases.", png, svg)
    if not len(values):
        return style.empty("No random arms to compare with.", png, svg)
    figure = plt.figure(figsize=(8, 3.4), layout=style.layout())
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
        axes.scatter(values, np.array(heights) + 0.5, s=55, color=style.GREY, zorder=3)
        axes.set_ylim(0, max([*heights, 2]) + 1)
        axes.set_yticks([])
    axes.axvline(0, color="#333333", linewidth=0.9, linestyle=":")
    axes.axvline(observed, color=style.VERMILION, linewidth=2.2, zorder=4)
    handles: list[Any] = [
        Line2D(
            [],
            [],
            color=style.VERMILION,
            lw=2.2,
            label=f"{style.readable(arm)} {observed:+.3f}",
        ),
        Line2D(
            [],
            [],
            color="#C8C8C8" if len(values) >= 20 else style.GREY,
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
    return style.save(figure, png, svg)
