"""Dice before and after the removals, case by case (Figure 1 of the paper)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from casesim.pruning.arms import REVIEWED, is_control_of
from casesim.pruning.summary import HEADLINE_ARM
from casesim.report import style

MOST_RANDOM_ROWS = 3


def pair_table(table: pd.DataFrame, region: str = "mean") -> pd.DataFrame:
    """Per arm and case, means and ranges over seeds: what `comparison` draws.

    More than three random arms of one size become one arm `random (R arms)`, their mean
    and range; a case counts in the arms that kept it. Pairs in which one of the two is
    undefined are left out.

    Args:
        table: `comparison.tsv`.
        region: which rows of it.

    Returns:
        `arm, case, role, removed, before, after, before_low, before_high, after_low,
        after_high`.
    """
    rows = table[table["region"] == region].dropna(subset=["dice_before", "dice_after"])
    for arm, name in ((HEADLINE_ARM, "random"), (REVIEWED, "random reviewed")):
        random = rows["arm"].map(lambda control, arm=arm: is_control_of(control, arm))
        number = rows.loc[random, "arm"].nunique()
        if number > MOST_RANDOM_ROWS:
            # Each random arm removes other cases; kept and removed are never mixed.
            rows = rows.assign(arm=rows["arm"].mask(random, f"{name} ({number} arms)"))
            rows = rows[~(random & rows["removed"].astype(bool))]
    grouped = rows.groupby(["arm", "case"], sort=False)
    return grouped.agg(
        role=("role", "first"),
        removed=("removed", "any"),
        before=("dice_before", "mean"),
        after=("dice_after", "mean"),
        before_low=("dice_before", "min"),
        before_high=("dice_before", "max"),
        after_low=("dice_after", "min"),
        after_high=("dice_after", "max"),
    ).reset_index()


def draw(
    table: pd.DataFrame, png: style.Path, svg: style.Path, region: str = "mean"
) -> Figure:
    """Dice before and after the removals, case by case (Figure 1 of the paper).

    One row of panels for each arm, pool cases on the left, held-out cases apart on the
    right. Cases are ordered by their Dice before.

    Args:
        table: `comparison.tsv`: `arm, case, role, removed, region, dice_before,
            dice_after`, with one row per seed where there are several.
        png, svg: files to write.
        region: which Dice.
    """
    pairs = pair_table(table, region)
    if pairs.empty:
        return style.empty("No case has a defined Dice before and after.", png, svg)
    before = pairs.groupby("case")["before"].mean()
    roles = pairs.groupby("case")["role"].first()
    groups = {}
    for role, name in (("pool", "pool case"), ("held_out", "held-out case")):
        chosen = before[roles == role].sort_index().sort_values(kind="stable")
        if len(chosen):
            groups[role] = (name, chosen.index.tolist())
    arms = pairs["arm"].unique().tolist()
    counts = [len(cases) for _, cases in groups.values()]
    pitch = min(max(11 / sum(counts), 0.13), 0.4)
    pitch = min(pitch, 24 / sum(counts))
    least = 2.6  # inches, so that the title of a small panel has room
    widths = [max(count * pitch, least) for count in counts]
    figure = plt.figure(
        figsize=(max(sum(widths) + 1.6, 7.5), 2.6 * len(arms) + 1.9),
        layout=style.layout(),
    )
    panels = figure.subplots(
        len(arms), len(groups), sharey=True, squeeze=False, width_ratios=widths
    )
    lowest = pairs[["before_low", "after_low"]].to_numpy(float).min()
    floor = max(0.0, math.floor(lowest * 10 - 0.5) / 10)
    spread = bool(
        (pairs["after_high"] > pairs["after_low"]).any()
        or (pairs["before_high"] > pairs["before_low"]).any()
    )
    for i, (row, arm) in enumerate(zip(panels, arms, strict=True)):
        for axes, (role, (name, cases)) in zip(row, groups.items(), strict=True):
            here = pairs[(pairs["arm"] == arm) & (pairs["role"] == role)]
            _pairs_panel(axes, here.set_index("case"), cases, pitch)
            axes.set_title(_mean_changes(here, role), fontsize=9.5, loc="left")
            axes.set_ylim(floor - 0.02, 1.02)
            if i == len(arms) - 1:
                axes.set_xlabel(f"{name} (ordered by Dice before)", fontsize=10)
            else:
                axes.tick_params(labelbottom=False)
        row[0].set_ylabel(f"{style.readable(arm)}\nDice", fontsize=10)
    figure.suptitle(
        f"Before and after the removal: {style.region_name(region)}", weight="bold"
    )
    figure.legend(
        handles=_pair_key(spread, bool(pairs["removed"].any())),
        loc="outside lower center",
        ncols=3 if figure.get_figwidth() < 9 else 6,
        fontsize=9,
        frameon=False,
    )
    return style.save(figure, png, svg)


def _mean_changes(here: pd.DataFrame, role: str) -> str:
    change = here["after"] - here["before"]
    if role == "held_out":
        return f"held out, n = {len(here)}: mean change {change.mean():+.3f}"
    removed = here["removed"].astype(bool)
    text = f"kept, n = {(~removed).sum()}: {change[~removed].mean():+.3f}"
    if removed.any():
        text += f"; removed, n = {removed.sum()}: {change[removed].mean():+.3f}"
    return text


def _pairs_panel(
    axes: Axes, here: pd.DataFrame, cases: Sequence[str], pitch: float
) -> None:
    place = {case: i for i, case in enumerate(cases)}
    x = np.array([place[case] for case in here.index])
    before, after = here["before"].to_numpy(), here["after"].to_numpy()
    colours = [
        style.BLUE if b >= a else style.VERMILION
        for a, b in zip(before, after, strict=True)
    ]
    marker = min(6.5, max(2.2, pitch * style.POINTS * 0.45))
    for position in x[here["removed"].to_numpy(dtype=bool)]:
        axes.axvspan(position - 0.5, position + 0.5, color="#E3E3E3", linewidth=0)
    for low, high, shade in (
        (here["before_low"], here["before_high"], style.GREY),
        (here["after_low"], here["after_high"], colours),
    ):
        axes.vlines(x, low, high, color=shade, linewidth=marker * 0.8, alpha=0.3)
    axes.vlines(x, before, after, color=colours, linewidth=1.3)
    axes.scatter(
        x,
        before,
        s=marker**2,
        facecolor="none",
        edgecolor="#333333",
        linewidth=1,
        zorder=5,
    )
    # The direction is in the shape too, for who does not see the colours.
    rising = after >= before
    for chosen, shape, colour in (
        (rising, "^", style.BLUE),
        (~rising, "v", style.VERMILION),
    ):
        axes.scatter(
            x[chosen], after[chosen], s=marker**2, marker=shape, color=colour, zorder=4
        )
    size, every = style.text_size(pitch, 8.5)
    shown = [i for i in range(len(cases)) if i % every == 0]
    axes.set_xticks(shown, [cases[i] for i in shown], rotation=90, fontsize=size)
    axes.set_xlim(-0.6, len(cases) - 0.4)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _pair_key(spread: bool, removed: bool) -> list[Any]:
    def mark(shape: str, colour: str, fill: str, label: str) -> Line2D:
        return Line2D(
            [],
            [],
            linestyle="none",
            marker=shape,
            color=colour,
            markerfacecolor=fill,
            label=label,
        )

    key: list[Any] = [
        mark("o", "#333333", "none", "before: all pool cases"),
        mark("^", style.BLUE, style.BLUE, "after: better"),
        mark("v", style.VERMILION, style.VERMILION, "after: worse"),
    ]
    if removed:
        key.append(Patch(color="#E3E3E3", label="removed from training"))
    if spread:
        key.append(Patch(color=style.GREY, alpha=0.4, label="range over seeds or arms"))
    return key
