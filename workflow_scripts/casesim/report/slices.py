"""One slice of a case with the contours of its labels: what pictures share."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from casesim.cohort.targets import IGNORE
from casesim.report import style


def lesion(label: npt.NDArray[Any], labels: Mapping[str, int]) -> npt.NDArray[Any]:
    """Where a label map has a label that is not the ignored one."""
    wanted = [number for name, number in labels.items() if name != IGNORE]
    return np.isin(label, wanted)


def label_colours(labels: Mapping[str, int]) -> dict[int, str]:
    """A colour for each label number; grey for the ignored one."""
    colours = {
        number: style.LABEL_COLOURS[i % len(style.LABEL_COLOURS)]
        for i, number in enumerate(sorted(labels.values()))
    }
    if IGNORE in labels:
        colours[labels[IGNORE]] = style.GREY
    return colours


def label_key(
    figure: Figure, labels: Mapping[str, int], colours: Mapping[int, str]
) -> None:
    """A legend of the labels (name to number) below a figure, in as many rows as its
    width asks for."""
    handles = [
        Line2D([], [], color=colours[number], lw=2.5, label=style.readable(name))
        for name, number in sorted(labels.items(), key=lambda item: item[1])
    ]
    # In inches, at this size: the line and the gaps, and the longest name.
    column = 0.6 + 0.085 * max(len(style.readable(name)) for name in labels)
    fitting = int(figure.get_figwidth() / column)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=max(1, min(fitting, len(handles))),
        fontsize=10,
        frameon=False,
    )


def head_box(image: npt.NDArray[Any]) -> tuple[slice, slice]:
    """Rows and columns of what is not background, with a margin of two voxels."""
    inside = np.argwhere(image != image[0, 0])
    if len(inside) == 0:
        return slice(None), slice(None)
    low = np.maximum(inside.min(axis=0) - 2, 0)
    high = inside.max(axis=0) + 3
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def draw_slice(
    axes: Axes,
    image: npt.NDArray[Any],
    mask: npt.NDArray[Any],
    colours: Mapping[int, str],
    box: tuple[slice, slice],
    spacing: tuple[float, float, float],
) -> None:
    """Draw an axial slice in grey, and a contour for each label.

    Args:
        axes: where to draw.
        image, mask: (y, x), in LPS order.
        colours: label number to colour.
        box: rows and columns to show, from `head_box`.
        spacing: (z, y, x) in mm; pixels get their true shape.
    """
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
