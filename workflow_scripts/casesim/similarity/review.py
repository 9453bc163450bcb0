"""Which cases to look at first, and why: one table that agrees with itself.

Effects of rows and columns (`effects`), the kind of each case (`kinds`) and its cluster
answer different questions, so they can differ. Here they stand side by side, ranked in
one way, and where they differ a note says why.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pandas as pd

from casesim.similarity.kinds import (
    BAD_IMAGE,
    ERRORS,
    HARD,
    LABEL_KINDS,
    TOO_FEW,
    short,
)

WORDS = ("case", "kind", "evidence", "note", "channel", "pair", "edit")
"""Columns that hold text; `worst` is true or false, all others are numbers."""

FIRST = ["rank", "case", "kind", "strength", "evidence", "note", "worst"]


def review(
    effects: pd.DataFrame,
    named: pd.DataFrame,
    clusters: pd.DataFrame,
    base: pd.DataFrame,
    label_quality: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Rank the cases for a reader.

    Cases with a kind of error come first, the strongest first; then all others, the
    lowest effect of the row first.

    Args:
        effects: from `effects.case_effects`.
        named: from `kinds.classify`, for the same cases.
        clusters: from `clustering.read_clusters`.
        base: what the base model says alone, by case: `base_dice`, `base_suspicion`.
        label_quality: cleanlab's score of each case; None where it was not asked for.

    Returns:
        `rank, case, kind, strength, evidence, note, worst` (whether in the worst
        cluster), then the columns of `effects` and `named`, `base`, `label_quality`
        where it was asked for, and `combined_rank`: the mean of a case's ranks by row
        (`donor_effect`), by the base model's Dice, by suspicion, and by label quality
        where there is one, the most suspect first; of an undefined value there is no
        rank. Which ranks enter was fixed before any result was seen.
    """
    table = effects.drop(columns="rank").merge(
        named, left_on="case", right_index=True, validate="one_to_one"
    )
    table = table.merge(clusters[["case", "worst"]], on="case", validate="one_to_one")
    table = table.merge(base, left_on="case", right_index=True, validate="one_to_one")
    ranks = [
        table["donor_effect"].rank(),
        table["base_dice"].rank(),
        (-table["suspicion"]).rank(),
    ]
    if label_quality:
        table["label_quality"] = table["case"].map(dict(label_quality)).astype(float)
        ranks.append(table["label_quality"].rank())
    table["combined_rank"] = pd.concat(ranks, axis=1).mean(axis=1)
    accused = table["kind"].map(short).isin(ERRORS)
    table["note"] = [_note(row) for row in table.to_dict("records")]
    # The order of `effects`, lowest row first, is kept among equals.
    order = table["strength"].where(accused, 0.0)
    table = table.loc[order.sort_values(ascending=False, kind="stable").index]
    table.insert(0, "rank", range(1, len(table) + 1))
    rest = [name for name in table if name not in FIRST]
    return table[[*FIRST, *rest]].reset_index(drop=True)


def review_quickly(
    named: pd.DataFrame,
    base_dice: pd.Series,
    label_quality: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Rank the cases by what is known before anything was fine-tuned.

    Args:
        named: from `kinds.classify` without rows.
        base_dice: the base model's Dice, by case.
        label_quality: as in `review`.

    Returns:
        `rank, case, kind, strength, evidence`, `base_dice`, `label_quality` where it
        was asked for, `combined_rank` (mean of the ranks by base Dice, suspicion and
        label quality, as far as they are defined), and the columns of `named`. Cases
        with a kind of error come first, the strongest first; then the most suspect by
        `combined_rank`.
    """
    table = named.rename_axis("case").reset_index()
    table["base_dice"] = table["case"].map(base_dice)
    ranks = [table["base_dice"].rank(), (-table["suspicion"]).rank()]
    if label_quality:
        table["label_quality"] = table["case"].map(dict(label_quality)).astype(float)
        ranks.append(table["label_quality"].rank())
    table["combined_rank"] = pd.concat(ranks, axis=1).mean(axis=1)
    accused = table["kind"].map(short).isin(ERRORS)
    table["_strength"] = -table["strength"].where(accused, 0.0)
    table = table.sort_values(["_strength", "combined_rank", "case"])
    table = table.drop(columns="_strength")
    table.insert(0, "rank", range(1, len(table) + 1))
    first = ["rank", "case", "kind", "strength", "evidence", "base_dice"]
    first += [name for name in ("label_quality", "combined_rank") if name in table]
    rest = [name for name in table if name not in first]
    return table[[*first, *rest]].reset_index(drop=True)


def write_cases(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table of `review`: `cases.tsv`."""
    written = table.assign(worst=table["worst"].map({True: "true", False: "false"}))
    written.to_csv(path, sep="\t", index=False)


def read_cases(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read `cases.tsv`; a case may be called NA, only an empty field is no number."""
    text = pd.read_csv(path, sep="\t", dtype=str, na_filter=False)
    numbers = [str(name) for name in text if name not in (*WORDS, "worst")]
    text[numbers] = text[numbers].replace("", "nan").astype(float)
    text["worst"] = text["worst"] == "true"
    return text


def _note(row: dict[Any, Any]) -> str:
    """Why cluster and kind differ, where they do."""
    kind = short(row["kind"])
    mean = f"row mean {row['row_mean']:.3f}"
    if kind in LABEL_KINDS and not row["worst"]:
        return (
            f"not in the worst cluster: its model still serves the others ({mean}), "
            "the error shows in the direction of what it changes"
        )
    if kind == BAD_IMAGE and not row["worst"]:
        return f"not in the worst cluster: a bad image need not spoil a row ({mean})"
    if kind == BAD_IMAGE:
        return f"in the worst cluster by its row ({mean}), whatever the reason"
    if kind == TOO_FEW:
        return ""
    if kind not in LABEL_KINDS and row["worst"]:
        what = "it is hard for others, too" if kind == HARD else "others agree with it"
        return (
            f"in the worst cluster by its row ({mean}), but {what}: nothing says that "
            "its label map is wrong"
        )
    return ""
