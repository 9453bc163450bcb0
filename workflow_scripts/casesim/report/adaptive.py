"""Was it worth it? Predicted against true Dice, and each method against the base."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from casesim.report import style

_NAMES = {
    "base": "base model",
    "adaptive": "adaptive: weighted ensemble",
    "pick": "adaptive: predicted best model",
    "finetuned_for_case": "adaptive: fine-tuned for the case",
    "uniform_all": "uniform ensemble, all",
    "uniform_without_worst": "uniform ensemble, without worst cluster",
    "continued_full": "base continued, full pool",
    "continued_kept": "base continued, without worst cluster",
    "full_retrained": "full pool, other seeds",
    "best_row_mean": "best row mean",
    "confidence_alone": "most confident model",
    "nearest_by_image": "nearest train case by image",
    "random": "random ensembles (mean of all)",
    "oracle": "oracle: best single model",
}
_ADAPTIVE = ("adaptive", "pick", "finetuned_for_case")
# What falls below the base by more than so many times the largest gain is drawn at the
# edge: its number says how far, and the others could not be told apart.
_SHOWN_LOSS = 3
_LEAST_GAIN = 0.02


def draw(
    points: pd.DataFrame,
    methods: pd.DataFrame,
    content: Mapping[str, Any],
    png: style.Path,
    svg: style.Path,
) -> Figure:
    """Predictions on the left, methods on the right.

    Args:
        points: from `judging.points`.
        methods: from `validation.methods`, one region.
        content: `validation.json`.
        png, svg: files to write.
    """
    rows = merge_random(methods)
    figure = plt.figure(
        figsize=(13.5, max(4.6, 0.36 * len(rows) + 1.6)), layout=style.layout()
    )
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.35])
    _draw_predictions(left, points, content)
    _draw_methods(right, rows, content)
    return style.save(figure, png, svg)


def merge_random(methods: pd.DataFrame) -> pd.DataFrame:
    """The table with one row for all random ensembles: their mean, and as interval the
    lowest and the highest."""
    random = methods["method"].str.startswith("random_")
    if not random.any():
        return methods
    drawn = methods[random]
    together = {
        "method": "random",
        "n": drawn["n"].max(),
        "mean": drawn["mean"].mean(),
        "change": drawn["change"].mean(),
        "ci_low": drawn["change"].min(),
        "ci_high": drawn["change"].max(),
        "gap_closed": drawn["gap_closed"].mean(),
    }
    merged = pd.concat([methods[~random], pd.DataFrame([together])])
    return merged.sort_values("change", ascending=False, ignore_index=True)


def _draw_predictions(
    axes: Axes, points: pd.DataFrame, content: Mapping[str, Any]
) -> None:
    axes.plot([0, 1], [0, 1], color="#333333", linewidth=0.9, zorder=0)
    looks = {
        "base": (style.GREY, "s", "base model"),
        "adaptive": (style.BLUE, "o", "adaptive segmentation"),
    }
    known = points.dropna(subset=["predicted_dice", "dice"])
    for kind, (colour, marker, name) in looks.items():
        rows = known[known["kind"] == kind]
        if kind == "adaptive":
            axes.hlines(
                rows["dice"],
                rows["low"],
                rows["high"],
                color=colour,
                alpha=0.35,
                lw=1.2,
            )
        axes.scatter(
            rows["predicted_dice"],
            rows["dice"],
            s=26,
            marker=marker,
            facecolor=colour if kind == "adaptive" else "none",
            edgecolor=colour,
            label=name,
            zorder=3,
            clip_on=False,
        )
    of_ensemble = known[known["kind"] == "adaptive"]
    shown = min(
        known[["predicted_dice", "dice"]].min().min(),
        of_ensemble["low"].min() if len(of_ensemble) else 1.0,
    )
    lowest = 0.0 if known.empty else max(0.0, math.floor(10 * shown) / 10)
    axes.set(xlim=(lowest, 1), ylim=(lowest, 1), aspect="equal")
    axes.set_xlabel("predicted Dice, without the label")
    axes.set_ylabel(f"true {style.region_name(content['region'])}")
    title = "Is the prediction right?"
    if known.empty:
        axes.text(
            0.5,
            0.5,
            "too few calibration cases\nto predict a Dice",
            ha="center",
            bbox={"color": "white"},
        )
    else:
        of = content["adaptive"]
        title += (
            f"\nadaptive segmentation: mean error {of['mae']:.3f}"
            f"\n{of['coverage']:.0%} of {of['n']} cases in their interval"
            f"\n({content['level']:.0%} promised)"
            if of["n"] > 1
            else "\ntoo few held-out cases to tell"
        )
        axes.legend(loc="upper left", fontsize=9, frameon=False)
    axes.set_title(title, loc="left", fontsize=10, weight="bold")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_methods(axes: Axes, rows: pd.DataFrame, content: Mapping[str, Any]) -> None:
    axes.axvline(0, color="#333333", linewidth=0.9)
    least = -_SHOWN_LOSS * max(_LEAST_GAIN, rows["change"].max())
    near = rows.loc[rows["change"] >= least, ["change", "ci_low", "ci_high"]]
    # Of one case there are no intervals.
    lowest, highest = (0.0, 0.0) if near.empty else (near.min().min(), near.max().max())
    margin = 0.05 * (highest - lowest) + 0.002
    axes.set_xlim(lowest - margin, highest + margin)
    axes.locator_params(axis="x", nbins=6)
    for y, row in enumerate(rows.to_dict("records")):
        method = str(row["method"])
        colour = style.BLUE if method in _ADAPTIVE else style.GREY
        colour = style.GREEN if method == "oracle" else colour
        axes.hlines(y, row["ci_low"], row["ci_high"], color=colour, linewidth=2)
        if row["change"] < least:
            edge = lowest - margin
            axes.scatter([edge], [y], color=colour, marker="<", clip_on=False)
        else:
            axes.scatter([row["change"]], [y], color=colour, s=42, zorder=3)
        axes.annotate(
            f"{row['mean']:.3f}  ({row['change']:+.3f})",
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    most = rows["n"].max()
    names = [
        _NAMES.get(method, style.readable(method))
        + (f" ({n:.0f} cases)" if n < most else "")
        for method, n in zip(rows["method"].astype(str), rows["n"], strict=True)
    ]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("change of Dice against the base model, 95 % interval over cases")
    judges = content["held_out_cases"]
    axes.set_title(
        f"Which segmentation is best? ({judges} held-out "
        f"{'case' if judges == 1 else 'cases'})\n"
        "right: mean Dice and change",
        loc="left",
        fontsize=10,
        weight="bold",
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
