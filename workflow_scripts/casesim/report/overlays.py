"""Cases with their reference, the model before and the model after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from casesim.cohort.targets import IGNORE
from casesim.report import slices, style


@dataclass(frozen=True)
class Overlay:
    """One case before and after, on one grid, (z, y, x) in LPS order, axial slices.

    Attributes:
        title: such as the case id and its change of Dice.
        image: FLAIR.
        reference, before, after: label maps.
        spacing: (z, y, x) in mm.
    """

    title: str
    image: npt.NDArray[Any]
    reference: npt.NDArray[Any]
    before: npt.NDArray[Any]
    after: npt.NDArray[Any]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)


def disagreeing_slice(overlay: Overlay, labels: Mapping[str, int]) -> int:
    """The slice in which before and after differ in most voxels that count.

    Where they are equal, the one in which they differ most from the reference, and then
    the one with most lesion; the lowest where that ties.
    """
    counted = overlay.reference != labels.get(IGNORE, -1)
    for different in (
        counted & (overlay.before != overlay.after),
        counted & (overlay.before != overlay.reference),
        slices.lesion(overlay.reference, labels),
    ):
        voxels = different.sum(axis=(1, 2))
        if voxels.any():
            return int(voxels.argmax())
    return len(overlay.image) // 2


def draw(
    cases: Sequence[Overlay],
    labels: Mapping[str, int],
    png: style.Path,
    svg: style.Path,
) -> Figure:
    """FLAIR with the reference, the model before and the model after, one row per case.

    Args:
        cases: such as the most improved and the most worsened one.
        labels: foreground label name to number, the ignored one among them if any.
        png, svg: files to write.
    """
    if not cases:
        return style.empty("No case to show: nothing was compared.", png, svg)
    figure = plt.figure(figsize=(9.6, 3.35 * len(cases) + 0.6), layout=style.layout())
    panels = figure.subplots(len(cases), 3, squeeze=False)
    colours = slices.label_colours(labels)
    for row, case in zip(panels, cases, strict=True):
        number = disagreeing_slice(case, labels)
        box = slices.head_box(case.image[number])
        for axes, name, mask in zip(
            row,
            ("reference", "before", "after"),
            (case.reference, case.before, case.after),
            strict=True,
        ):
            slices.draw_slice(
                axes, case.image[number], mask[number], colours, box, case.spacing
            )
            axes.set_title(name, fontsize=10)
        row[0].set_ylabel(f"{case.title}\naxial slice {number}", fontsize=10)
    slices.label_key(figure, labels, colours)
    return style.save(figure, png, svg)
