"""The page on new cases: each segmentation, what to think of it, what it leans on."""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from casesim.adaptive import arrivals, outlook
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
"""


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
        labels: name to number, without the background.
        channel: name of the first channel.
        fit: a sentence on how well Dice is predicted.
        level: of the intervals.
    """
    order = told.sort_values(
        ["predicted_dice", "case"], na_position="last", kind="stable"
    )
    sections = [_section(row, files, labels, channel) for _, row in order.iterrows()]
    promise = (
        f" The interval is meant to hold the true Dice of {level:.0%} of cases <em>"
        "like the calibration cases</em>; a case of another site or scanner voids it."
        if told["predicted_dice"].notna().any()
        else ""
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>New cases</title>
<style>{_STYLE}</style></head><body>
<h1>New cases ({len(told)}), the least sure first</h1>
<p class="note">{html.escape(fit)}{promise}</p>
{"".join(sections)}
</body></html>
"""


def _section(
    row: pd.Series, files: Files, labels: Mapping[str, int], channel: str
) -> str:
    case = str(row["case"])
    words = str(row["words"])
    look = words in (outlook.LOOK, outlook.UNLIKE)
    figure = draw(case, arrivals.names(row, "leans_on"), files, labels, channel)
    alt = f"{case} and the train cases its segmentation leans on"
    return f"""<section{' class="look"' if look else ""}>
<h2>{html.escape(case)}</h2>
<p><span class="dice">{html.escape(dice_text(row))}</span>
<span class="words">{html.escape(words)}</span></p>
<img alt="{html.escape(alt)}" src="data:image/png;base64,{_png(figure)}">
<p><code>{html.escape(str(row["segmentation"]))}</code></p>
</section>
"""


def dice_text(row: pd.Series) -> str:
    """The predicted Dice with its interval, as it is written for people."""
    predicted, low, high = (
        float(row[name]) for name in ("predicted_dice", "low", "high")
    )
    if math.isnan(predicted):
        return "No Dice predicted."
    return f"Predicted Dice {predicted:.2f} ({low:.2f} to {high:.2f})."


def draw(
    case: str,
    leans_on: Sequence[str],
    files: Files,
    labels: Mapping[str, int],
    channel: str,
) -> Figure:
    """A new case with its segmentation, beside train cases with their references.

    Each in the slice with the most labelled voxels.
    """
    figure = plt.figure(figsize=(2.6 * (1 + len(leans_on)), 3.1), layout="constrained")
    colours = slices.label_colours(labels)
    role = f"segmentation ({channel}, axial)"
    shown = [(case, files.images[case], files.label_maps[case], role)]
    shown += [
        (name, files.train_images[name], files.train_labels[name], "leans on")
        for name in leans_on
    ]
    for axes, (name, image_path, label_path, role) in zip(
        np.atleast_1d(figure.subplots(1, len(shown))), shown, strict=True
    ):
        image, spacing = read_axial(image_path)
        mask, _ = read_axial(label_path)
        z = int(np.argmax((mask > 0).sum(axis=(1, 2))))
        if not mask.any():
            z = len(mask) // 2
        box = slices.head_box(image[z])
        slices.draw_slice(axes, image[z], mask[z], colours, box, spacing)
        axes.set_title(f"{role}\n{name}", fontsize=9)
    slices.label_key(figure, labels, colours)
    return figure


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
