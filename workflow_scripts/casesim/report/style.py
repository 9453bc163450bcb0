"""What all figures share: colours, sizes of text and page, saving.

Colours tell apart with any colour vision, and never alone. Each figure has a module
with a function `draw`: it draws from tables and arrays, writes a PNG and an SVG (whole
or not at all, and the same bytes for the same input), and returns the figure.
"""

import math
import os
from collections.abc import Sequence

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.transforms import Bbox

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
LONGEST_SIDE = 40.0  # inches; beyond it not every row has a name
SMALLEST_TEXT = 6.0  # points
POINTS = 72.0  # in an inch


def save(figure: Figure, png: Path, svg: Path, dpi: int = 150) -> Figure:
    """Write a figure as PNG and SVG, each whole or not at all, and close it."""
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


def layout() -> ConstrainedLayoutEngine:
    """The layout of all figures but the heat map, with a margin."""
    return ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)


def empty(message: str, png: Path, svg: Path) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = plt.figure(figsize=(7, 2))
    figure.text(0.5, 0.5, message, ha="center", va="center")
    return save(figure, png, svg)


def extent(text: Text) -> Bbox:
    """Where a text is drawn, in inches from the figure's lower left corner."""
    figure = text.get_figure(root=True)
    assert figure is not None
    box = text.get_window_extent()
    return Bbox(box.get_points() / figure.dpi)


def widest(texts: Sequence[Text]) -> float:
    """The largest width of some texts, in inches."""
    return max((extent(text).width for text in texts), default=0.0)


def highest(texts: Sequence[Text]) -> float:
    """The largest height of some texts, in inches."""
    return max((extent(text).height for text in texts), default=0.0)


def text_size(pitch: float, largest: float = 9.0) -> tuple[float, int]:
    """Font size in points for labels `pitch` inches apart; every how many to draw.

    Names are left out only where they would run into each other at the smallest size.
    """
    every = max(1, math.ceil(SMALLEST_TEXT * 1.25 / POINTS / pitch - 1e-9))
    return min(largest, pitch * every * POINTS / 1.25), every


def readable(arm: str) -> str:
    """A name of an arm, a score or a label, as it is written for people."""
    return arm.replace("_", " ")


def region_name(region: str) -> str:
    """What is averaged or measured, for a title."""
    return "mean Dice over labels" if region == "mean" else f"Dice of {region}"


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


def cluster_key(clusters: pd.DataFrame, most: int = 12) -> list[Patch]:
    """The clusters of `clusters.tsv` for a legend; of many, the worst alone."""
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
