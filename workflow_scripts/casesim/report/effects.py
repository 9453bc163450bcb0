"""Each train case as donor (row) and as recipient (column)."""

import textwrap

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from casesim.report import style
from casesim.similarity import kinds

_KIND_STYLE = {
    kinds.OVER: (style.VERMILION, "^"),
    kinds.UNDER: (style.BLUE, "v"),
    kinds.DISPLACED: (style.PURPLE, "X"),
    kinds.EXCHANGED: (style.ORANGE, "s"),
    kinds.BAD_IMAGE: (style.SKY, "P"),
    kinds.HARD: (style.GREEN, "D"),
    kinds.NOTHING: (style.GREY, "o"),
    kinds.TOO_FEW: (style.GREY, "."),
}


def draw(effects: pd.DataFrame, png: style.Path, svg: style.Path) -> Figure:
    """Donor effect (row) against recipient effect (column) of each train case.

    Args:
        effects: from `similarity.review.review`.
        png, svg: files to write.
    """
    figure = plt.figure(figsize=(9, 6), layout=style.layout())
    axes = figure.subplots()
    axes.axhline(0, color="#D0D0D0", linewidth=0.9)
    axes.axvline(0, color="#D0D0D0", linewidth=0.9)
    handles = []
    kind_of = effects["kind"].map(kinds.short)
    for kind, (colour, shape) in _KIND_STYLE.items():
        chosen = effects[kind_of == kind]
        if kind == kinds.TOO_FEW and chosen.empty:
            continue
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
                label=f"{kind} ({len(chosen)})",
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
    notable = effects[~kind_of.isin([kinds.NOTHING, kinds.TOO_FEW])]
    crowded = _name_points(axes, notable, effects)
    _list_names(
        figure, notable[notable["case"].isin(crowded)], legend.get_window_extent()
    )
    return style.save(figure, png, svg)


def _list_names(
    figure: Figure, cases: pd.DataFrame, above: Bbox, most: int = 30
) -> None:
    """Name, below a legend, the cases whose names have no place among the points."""
    if cases.empty:
        return
    lines = ["No room for a name beside the point:"]
    for kind, names in cases.groupby("kind", sort=False)["case"]:
        lines += textwrap.wrap(
            f"{kind}: {', '.join(map(str, names))}", 38, break_on_hyphens=False
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
