"""The page on new cases: each segmentation, what to think of it, what it leans on."""

import base64
import functools
import html
import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from casesim.adaptive import arrivals, labelling, outlook
from casesim.images import read_axial
from casesim.report import slices

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 62em;
       padding: 0 1em; color: #222; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin: 0 0 .3em; }
section { border-top: 1px solid #ccc; padding: 1em 0; }
section.look { border-left: 5px solid #D55E00; padding-left: 1em; }
img { max-width: 100%; } .dice { font-size: 1.3em; font-weight: 600; }
.words { font-weight: 600; } p.note { color: #555; max-width: 46em; }
code { background: #f3f3f3; padding: 0 .2em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { text-align: left; padding: .2em 1.2em .2em 0; border-bottom: 1px solid #ddd; }
td.number { font-variant-numeric: tabular-nums; }
td.case, td.number { white-space: nowrap; }
h2 a { font-size: .8em; font-weight: 400; margin-left: 1em; }
"""

# More pictures beside each other would be too small on a page.
_IN_A_ROW = 4
# Characters above a picture.
_LONGEST_LINE = 34

_INTRODUCTION = (
    "Each case is segmented by several models together, and the better a model is "
    "predicted to do on it, the more it counts. Beside the segmentation are the train "
    "cases whose models count most: the case <em>leans on</em> them."
)


Slice = tuple[npt.NDArray[Any], npt.NDArray[Any], tuple[float, float, float]]
Read = Callable[[str, str], Slice]


@dataclass(frozen=True)
class Files:
    """Where the pictures come from, by case: image of the first channel and label map
    (of new cases the segmentation, of train cases the reference)."""

    images: Mapping[str, str]
    label_maps: Mapping[str, str]
    train_images: Mapping[str, str]
    train_labels: Mapping[str, str]


def page(
    told: pd.DataFrame,
    files: Files,
    labels: Mapping[str, int],
    channel: str,
    fit: str,
    level: float,
) -> str:
    """The page, whole in one file: pictures are inside it.

    Args:
        told: from `arrivals.table`.
        files: of the pictures.
        labels: name to number, without the background; the ignored one, too.
        channel: name of the first channel.
        fit: a sentence on how well Dice is predicted.
        level: of the intervals.
    """
    order = arrivals.to_look_at(told)
    read = reader(labels)
    sections = [
        _section(number, row, files, labels, channel, read)
        for number, (_, row) in enumerate(order.iterrows(), start=1)
    ]
    promise = (
        " Nobody has labelled the cases below: their Dice is predicted in the same way."
        f" The interval is meant to hold the true Dice of {level:.0%} of cases <em>"
        "like the calibration cases</em>; a case of another site or scanner voids it."
        if told["predicted_dice"].notna().any()
        else ""
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>New cases</title>
<style>{_STYLE}</style></head><body>
<h1>New cases ({len(told)}), those to look at first</h1>
<p class="note">{_INTRODUCTION}</p>
<p class="note">{html.escape(fit)}{promise}</p>
{_overview(order)}
{"".join(sections)}
</body></html>
"""


def _overview(order: pd.DataFrame) -> str:
    """All cases in one table, with the place of each in the order of labelling."""
    places = labelling.labelling_order(order).set_index("case")["order"]
    lines = [
        '<tr><td class="case">'
        f'<a href="#case{number}">{html.escape(str(row["case"]))}</a></td>'
        f'<td class="number">{html.escape(dice_in_numbers(row))}</td>'
        f"<td>{html.escape(str(row['words']))}</td>"
        f'<td class="number">{places[row["case"]]}</td></tr>'
        for number, (_, row) in enumerate(order.iterrows(), start=1)
    ]
    return (
        "<table><tr><th>case</th><th>predicted Dice (interval)</th>"
        "<th>what to think of it</th><th>order of labelling</th></tr>"
        f"{''.join(lines)}</table>"
    )


def _section(
    number: int,
    row: pd.Series,
    files: Files,
    labels: Mapping[str, int],
    channel: str,
    read: Read,
) -> str:
    case = str(row["case"])
    words = str(row["words"])
    look = words in outlook.NEEDS_A_LOOK
    leans_on = arrivals.names(row, "leans_on")
    figure = draw(case, leans_on, files, labels, channel, read)
    alt = f"{case} and the train cases its segmentation leans on"
    notes = [f"Segmentation: <code>{html.escape(str(row['segmentation']))}</code>."]
    if not leans_on:
        notes.append("It leans on no train case: the base alone counts.")
    if own := str(row["of_own_model"]):
        notes.append(
            "Another one, by a model fine-tuned for this case, of which nothing is "
            f"predicted: <code>{html.escape(own)}</code>."
        )
    return f"""<section id="case{number}"{' class="look"' if look else ""}>
<h2>{html.escape(case)} <a href="#">all cases</a></h2>
<p><span class="dice">{html.escape(dice_text(row))}</span>
<span class="words">{html.escape(words[:1].upper() + words[1:])}.</span></p>
<img alt="{html.escape(alt)}" decoding="async"
 src="data:image/webp;base64,{_picture(figure)}">
<p>{" ".join(notes)}</p>
</section>
"""


def dice_text(row: pd.Series) -> str:
    """The predicted Dice with its interval, as a sentence."""
    found = dice_in_numbers(row)
    return f"Predicted Dice {found}." if found else "No Dice predicted."


def dice_in_numbers(row: pd.Series | Mapping[Any, Any]) -> str:
    """The predicted Dice with its interval, or without where none is promised; nothing
    where no Dice is predicted."""
    predicted, low, high = (
        float(row[name]) for name in ("predicted_dice", "low", "high")
    )
    if math.isnan(predicted):
        return ""
    interval = f"{low:.2f} to {high:.2f}" if low <= high else "no interval"
    return f"{predicted:.2f} ({interval})"


def reader(labels: Mapping[str, int]) -> Read:
    """Reads image and label map (y, x) in the axial slice with the most labelled voxels
    (the ignored label is none), the middle one without any; and the spacing (z, y, x)
    in mm. Many new cases lean on few train cases: what was read is kept."""

    @functools.cache
    def read(image_path: str, label_path: str) -> Slice:
        image, spacing = read_axial(image_path)
        mask, _ = read_axial(label_path)
        inside = slices.lesion(mask, labels).sum(axis=(1, 2))
        z = int(np.argmax(inside)) if inside.any() else len(mask) // 2
        return image[z].copy(), mask[z].copy(), spacing

    return read


def draw(
    case: str,
    leans_on: Sequence[str],
    files: Files,
    labels: Mapping[str, int],
    channel: str,
    read: Read,
) -> Figure:
    """A new case with its segmentation, beside train cases with their references.

    Each in the slice that `read`, from `reader`, finds.
    """
    # Room for two, so that the labels have some below one.
    columns = min(_IN_A_ROW, max(2, 1 + len(leans_on)))
    rows = math.ceil((1 + len(leans_on)) / columns)
    size = (2.6 * columns, 2.7 * rows + 0.4)
    figure = plt.figure(figsize=size, layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places[1 + len(leans_on) :]:
        axes.set_visible(False)
    colours = slices.label_colours(labels)
    role = f"segmentation ({channel}, axial)"
    shown = [(case, files.images[case], files.label_maps[case], role)]
    shown += [
        (name, files.train_images[name], files.train_labels[name], "leans on")
        for name in leans_on
    ]
    for axes, (name, image_path, label_path, role) in zip(places, shown, strict=False):
        image, mask, spacing = read(image_path, label_path)
        box = slices.head_box(image)
        slices.draw_slice(axes, image, mask, colours, box, spacing)
        axes.set_title(f"{role}\n{textwrap.fill(name, _LONGEST_LINE)}", fontsize=9)
    slices.label_key(figure, labels, colours)
    return figure


def _picture(figure: Figure) -> str:
    """A figure as base64: WebP, since a page may have hundreds of noisy images."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=110, pil_kwargs={"quality": 85})
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
