"""A few cases of a cohort with their reference labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from casesim.report import slices, style

MOST_GALLERY_CASES = 24


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


def draw(
    cases: Sequence[GalleryCase],
    labels: Mapping[str, int],
    png: style.Path,
    svg: style.Path,
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
        figsize=(max(3.5 * across, 6), 2.4 * down + 0.7), layout=style.layout()
    )
    lines = max(case.title.count("\n") for case in cases)
    cells = figure.subfigures(down, across, squeeze=False)
    colours = slices.label_colours(labels)
    for case, cell in zip(cases, cells.flat, strict=False):
        number = int(slices.lesion(case.label, labels).sum(axis=(1, 2)).argmax())
        box = slices.head_box(next(iter(case.images.values()))[number])
        panels = cell.subplots(1, len(case.images), squeeze=False)[0]
        for axes, (name, image) in zip(panels, case.images.items(), strict=True):
            slices.draw_slice(
                axes, image[number], case.label[number], colours, box, case.spacing
            )
            axes.set_xlabel(name, fontsize=8)
        # As many lines everywhere, so that all images get the same size.
        missing = lines - case.title.count("\n")
        cell.suptitle(case.title + "\n" * missing, fontsize=10)
    slices.label_key(figure, labels, colours)
    return style.save(figure, png, svg)
