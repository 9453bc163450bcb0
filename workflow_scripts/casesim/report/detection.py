"""How well each score finds the planted defects."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from casesim.report import style

_KIND_NAMES = {"label": "Wrong labels", "image": "Bad images"}


def draw(table: pd.DataFrame, png: style.Path, svg: style.Path) -> Figure:
    """How well each score finds the planted defects: AUROC and average precision.

    Args:
        table: from `evidence.detection`; one panel for each kind of defect.
        png, svg: files to write.
    """
    table = table[table["kind"] == "any"]
    kinds = [kind for kind in _KIND_NAMES if (table["defect"] == kind).any()]
    names = list(dict.fromkeys(table["score"]))
    figure = plt.figure(
        figsize=(1.6 + 4.6 * len(kinds), 0.42 * len(names) + 2.0), layout=style.layout()
    )
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        rows = table[table["defect"] == kind].set_index("score").loc[names]
        first = rows.iloc[0]
        axes.axvline(0.5, color="#333333", linewidth=0.9, linestyle=":")
        axes.axvline(
            first["prevalence"],
            color=style.ORANGE,
            linewidth=1.1,
            linestyle="--",
            zorder=1,
        )
        height = np.arange(len(names))
        axes.hlines(height, 0, 1, color="#E8E8E8", linewidth=0.9, zorder=0)
        axes.scatter(
            rows["average_precision"],
            height,
            color=style.ORANGE,
            marker="D",
            s=80,  # its corners show where both values are the same
            zorder=3,
            clip_on=False,
        )
        axes.scatter(
            rows["auroc"], height, color=style.BLUE, s=34, zorder=4, clip_on=False
        )
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
    panels[0].set_yticks(range(len(names)), [style.readable(name) for name in names])
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.legend(
        handles=[
            Line2D([], [], color=style.BLUE, marker="o", ls="none", label="AUROC"),
            Line2D([], [], color="#333333", lw=0.9, ls=":", label="AUROC by chance"),
            Line2D(
                [],
                [],
                color=style.ORANGE,
                marker="D",
                ls="none",
                label="average precision",
            ),
            Line2D(
                [],
                [],
                color=style.ORANGE,
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
    return style.save(figure, png, svg)
