"""Which error it is: a kind for each case, by fixed rules on its signature.

No rule is trained and none reads a truth. The thresholds are below, their reasons in
docs/evidence.md. Each kind asks two questions that are answered by different cells:

* do others contradict the label map? (the base model: by its counts, and by the single
  change of the map that would make it fit)
* does a model taught by it carry the error to other cases? (the row)

A case that is merely hard is contradicted by others, too, but teaches nothing wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from casesim.similarity.edits import ADDED, EDITS, MOVED, NARROWER, REMOVED, WIDER
from casesim.similarity.signatures import FOREGROUND, Signatures

OVER = "over-segmented"
UNDER = "under-segmented or missed"
DISPLACED = "displaced or of another image"
EXCHANGED = "labels exchanged"
BAD_IMAGE = "bad image"
HARD = "hard, but consistent"
NOTHING = "nothing conspicuous"
TOO_FEW = "too few cases to tell"
LABEL_KINDS = (OVER, UNDER, DISPLACED, EXCHANGED)
ERRORS = (*LABEL_KINDS, BAD_IMAGE)
KINDS = (*ERRORS, HARD, NOTHING, TOO_FEW)

# A cohort of fewer cases does not say what is usual (docs/evidence.md has the figures).
FEWEST_CASES = 8

# Robust standard deviations beyond which more is not stronger: one side alone must not
# make a kind.
LARGEST_Z = 8.0
# Geometric mean of the two sides' z (or the one side's, where there is no row) that
# makes a kind: a side that says nothing is not made up for by the other.
STRONG = 2.2
STRONG_ALONE = 3.5
# Each side must at least point the same way; the row of a displaced map, of which two
# numbers are looked at, a little more.
POINTS = {OVER: 1.0, UNDER: 1.0, DISPLACED: 1.5, EXCHANGED: 1.0}
# A kind that explains more is named if it is nearly as strong as the strongest.
AS_STRONG = 0.9
# Precision or recall that is no lower than this counts as untouched.
UNTOUCHED = 2.0
# Others contradict a label map by less than this: too little to act on, whatever the z.
SMALLEST_EFFECT = {"volume": 0.08, "dice": 0.05}
# Two labels are exchanged only if exchanging them back is better than not to.
SMALLEST_GAIN = 0.1
# A channel is bad by its distance relative to the next channel's (`cohort.channels`).
BAD_CHANNEL = 1.6
# An edit explains a map that then fits as usual: within so many robust standard
# deviations of the median Dice, or within the smallest effect.
USUAL = 1.0
# Median Dice by which a judge may fall behind the median of the fine-tuned models.
WORSE_JUDGE = 0.1
# What each edit of a label map undoes.
UNDONE = {
    **dict.fromkeys((NARROWER, REMOVED), OVER),
    **dict.fromkeys((WIDER, ADDED), UNDER),
    MOVED: DISPLACED,
}
# As for the words of rows and columns (`effects`).
HARD_Z, HARD_DICE = -2.5, -0.05


@dataclass(frozen=True)
class _Side:
    """Effects, z and values of all cases, seen from one side: (measure, region)
    columns."""

    effect: pd.DataFrame
    z: pd.DataFrame
    value: pd.DataFrame


def classify(
    signatures: Signatures,
    cases: Sequence[str],
    channels: pd.DataFrame | None = None,
    fewest: int = FEWEST_CASES,
) -> pd.DataFrame:
    """The kind of each case, with its strength and its evidence.

    Args:
        signatures: of all cases. Without rows, `base` decides alone.
        cases: the cases to name.
        channels: from `cohort.channels.compare`; None where images were not looked at.
        fewest: cases that it takes to name kinds.

    Returns:
        Indexed by case: `kind`, of fewer than `fewest` cases `TOO_FEW`;
        `strength`, robust standard deviations (0 for nothing conspicuous); `evidence`,
        the numbers in words; `channel`, named where the image is bad, `channel_score`;
        `suspicion`, the strongest support that any label kind has, however weak; and
        the measures that the rules look at.
    """
    row = _side(signatures, "row", cases)
    judge, view = _view(signatures, cases)
    numbers = _numbers(row, view)
    numbers = numbers.join(_best_edit(signatures, numbers, judge == "base"))
    strengths = _strengths(numbers)
    image = _worst_channel(channels, cases)
    rows = []
    for numbered, strong, looks in zip(
        *(table.to_dict("records") for table in (numbers, strengths, image)),
        strict=True,
    ):
        kind, strength = _decide(strong, numbered)
        # A spoilt image is matched badly and teaches badly, in no direction: as a map
        # that lies elsewhere.
        unexplained = kind not in LABEL_KINDS or kind == DISPLACED
        if unexplained and looks["channel_score"] >= BAD_CHANNEL:
            kind, strength = BAD_IMAGE, looks["channel_score"]
        if kind == EXCHANGED:
            kind = f"{EXCHANGED}: {numbered['pair'].replace('|', ' and ')}"
        evidence = _evidence(kind, numbered, looks)
        rows.append({"kind": kind, "strength": strength, "evidence": evidence})
    named = pd.DataFrame(rows, index=pd.Index(cases, name="case"))
    if len(cases) < fewest:
        told = f"what is usual takes {fewest} cases, here are {len(cases)}"
        named[["kind", "strength", "evidence"]] = TOO_FEW, 0.0, told
    named["channel"] = image["channel"].where(named["kind"] == BAD_IMAGE, "")
    named["channel_score"] = image["channel_score"]
    named["suspicion"] = _suspicion(strengths)
    return named.join(numbers)


def _suspicion(strengths: pd.DataFrame) -> pd.Series:
    """The strongest support that any kind of label error has, however weak."""
    return strengths.max(axis=1)


def short(kind: str) -> str:
    """A kind without the labels that it names."""
    return kind.partition(":")[0]


def _side(signatures: Signatures, side: str, cases: Sequence[str]) -> _Side | None:
    if not (signatures.table["side"] == side).any():
        return None
    effect, z, value = (
        signatures.wide(side, what).reindex(list(cases))
        for what in ("effect", "z", "value")
    )
    return _Side(effect, z, value)


def _view(signatures: Signatures, cases: Sequence[str]) -> tuple[str, _Side]:
    """What others make of the cases: from the first side that there is and can judge.

    One good model tells more than the median of many that were each fine-tuned on a
    single case, and more than models of a part of the pool, although they never saw the
    case (docs/evidence.md has the figures). But a model that has hardly learnt the task
    contradicts every label map: it is no judge where those many match the typical case
    clearly better.
    """
    sides = {
        name: side
        for name in ("base", "column")
        if (side := _side(signatures, name, cases)) is not None
    }
    if not sides:
        raise ValueError("there is nothing to judge the cases by")
    typical = {
        name: side.value["dice", FOREGROUND].median() for name, side in sides.items()
    }
    least = typical.get("column", -np.inf) - WORSE_JUDGE
    able = [name for name in sides if typical[name] >= least]
    judge = (able or list(sides))[0]
    return judge, sides[judge]


def _numbers(row: _Side | None, view: _Side) -> pd.DataFrame:
    """The measures that the rules look at, a column each; NaN where there is no row."""
    table = pd.DataFrame(index=view.effect.index)
    for name, side in (("row", row), ("others", view)):
        for measure in ("volume", "precision", "recall", "dice", "labels", "far"):
            key = (measure, FOREGROUND)
            table[f"{name}_{measure}"] = np.nan if side is None else side.effect[key]
            table[f"{name}_{measure}_z"] = np.nan if side is None else side.z[key]
    gains = _exchanges(view.value)
    if gains.empty:
        table["pair"] = ""
        exchange = ["row_exchange", "row_exchange_z", "others_exchange", "gain"]
        table[[*exchange, "others_exchange_z"]] = np.nan
        return table
    filled = gains.fillna(-np.inf).to_numpy()
    best = filled.argmax(axis=1)
    table["pair"] = [str(gains.columns[i]) for i in best]
    table["gain"] = np.where(
        np.isfinite(filled.max(axis=1)), filled.max(axis=1), np.nan
    )
    for name, side in (("row", row), ("others", view)):
        for suffix in ("", "_z"):
            values = np.full(len(table), np.nan)
            if side is not None:
                chosen = _exchanges(side.z if suffix else side.effect)
                values = chosen.to_numpy(float)[np.arange(len(table)), best]
            table[f"{name}_exchange{suffix}"] = values
    return table


def _best_edit(
    signatures: Signatures, numbers: pd.DataFrame, is_judge: bool
) -> pd.DataFrame:
    """The change of each label map that explains it best, and what changes gain.

    An edit explains a map if it then fits as well as is usual: what else is wrong with
    a hard case, or a map of another image, is still so afterwards. Nor does another
    border explain that labels are wrong within.

    Args:
        signatures, numbers: as elsewhere.
        is_judge: whether the base model, whose edits they are, is asked at all.

    Returns:
        By case: `edit` (empty where none explains anything), its `edit_gain` of Dice,
        `edit_z` and `edit_by`; `too_large_z` and `too_small_z`, the largest z of any
        edit that undoes such a map, whether it explains it or not. NaN where edits were
        not looked for, the last two also where no piece could be and no border gains.
    """
    table = pd.DataFrame(index=numbers.index)
    side = _side(signatures, "edits", list(numbers.index)) if is_judge else None
    if side is None or signatures.changes is None:
        names = ("edit_gain", "edit_z", "edit_by", "too_large_z", "too_small_z")
        return table.assign(edit="", **dict.fromkeys(names, np.nan))
    gains, z = (
        values.droplevel("region", axis=1)[list(EDITS)]
        for values in (side.value, side.z)
    )
    by = signatures.changes.pivot(index="case", columns="edit", values="by")
    by = by.reindex(index=table.index, columns=list(EDITS))
    dice, dice_z = numbers["others_dice"], numbers["others_dice_z"]
    spread = (dice / dice_z).abs().median()
    least = -max(SMALLEST_EFFECT["dice"], USUAL * spread)
    explains = gains.add(dice, axis=0) >= least
    wrong_within = numbers["others_labels_z"] <= -STRONG_ALONE
    for edit in EDITS:
        if edit != MOVED:
            explains[edit] &= ~wrong_within
    told = z.where(explains, 0.0).fillna(0.0)
    best = told.to_numpy().argmax(axis=1)
    each = np.arange(len(told)), best
    found = told.to_numpy()[each] > 0
    names = np.array(EDITS, dtype=object)[best]
    of = {kind: [e for e in EDITS if UNDONE[e] == kind] for kind in (OVER, UNDER)}
    largest = {kind: z[edits].max(axis=1) for kind, edits in of.items()}
    for kind, edits in of.items():
        unseen = z[edits].isna().any(axis=1)
        largest[kind] = largest[kind].mask(unseen & (largest[kind] < UNTOUCHED))
    return table.assign(
        edit=np.where(found, names, ""),
        edit_gain=np.where(found, gains.to_numpy(float)[each], 0.0),
        edit_z=np.where(found, told.to_numpy(float)[each], 0.0),
        edit_by=np.where(found, by.to_numpy(float)[each], 0.0),
        too_large_z=largest[OVER],
        too_small_z=largest[UNDER],
    )


def _exchanges(values: pd.DataFrame) -> pd.DataFrame:
    """The measure `exchange` of all pairs of labels, a column each."""
    chosen = values.columns.get_level_values("measure") == "exchange"
    pairs = values.columns.get_level_values("region")[chosen]
    return pd.DataFrame(
        values.loc[:, chosen].to_numpy(float), index=values.index, columns=pairs
    )


def _strengths(numbers: pd.DataFrame) -> pd.DataFrame:
    """How strongly each label kind is supported by the sides that there are.

    0 where a side says nothing, or points the other way.
    """
    precision, recall = numbers["others_precision_z"], numbers["others_recall_z"]
    # Of a map that is only too large, all that others draw is right; and so on.
    left_out = -recall.where(precision > -UNTOUCHED)
    drawn_beyond = -precision.where(recall > -UNTOUCHED)
    undone = numbers["edit"].map(UNDONE)
    by_edit = {
        kind: numbers["edit_z"].where(undone == kind, 0.0)
        for kind in (OVER, UNDER, DISPLACED)
    }
    # What an edit undoes needs no other explanation.
    explained = undone.isin([OVER, UNDER]) & (numbers["edit_z"] >= STRONG_ALONE)
    both_low = -numbers[["others_precision_z", "others_recall_z"]].max(axis=1)
    elsewhere = _largest(both_low.where(~explained), -numbers["others_labels_z"])
    misplaced = -numbers[["row_dice_z", "row_labels_z"]].min(axis=1)
    sides = {
        OVER: (
            numbers["row_volume_z"],
            _largest(-numbers["others_volume_z"], left_out, by_edit[OVER]),
        ),
        UNDER: (
            -numbers["row_volume_z"],
            _largest(numbers["others_volume_z"], drawn_beyond, by_edit[UNDER]),
        ),
        DISPLACED: (misplaced, _largest(elsewhere, by_edit[DISPLACED])),
        EXCHANGED: (numbers["row_exchange_z"], numbers["others_exchange_z"]),
    }
    alone = numbers["row_volume_z"].isna().all()
    found = {}
    for kind, (taught, contradicted) in sides.items():
        contradicted = contradicted.clip(upper=LARGEST_Z)
        if alone:
            found[kind] = contradicted.where(contradicted > POINTS[kind], 0.0)
            continue
        taught = taught.clip(upper=LARGEST_Z)
        agree = (taught > POINTS[kind]) & (contradicted > POINTS[kind])
        # A direction, unlike a low Dice, is not what a hard case has.
        direction = by_edit[DISPLACED] if kind == DISPLACED else contradicted
        enough = (direction >= STRONG_ALONE) & (taught > 0)
        # Nor does a hard case fit as usual, if only it is drawn otherwise.
        if kind in by_edit:
            enough |= by_edit[kind] >= LARGEST_Z
        least = STRONG**2 / STRONG_ALONE
        both = contradicted * taught.where(~enough, taught.clip(lower=least))
        found[kind] = both.where(agree | enough, 0.0) ** 0.5
    return pd.DataFrame(found).fillna(0.0)


def _largest(*values: pd.Series) -> pd.Series:
    return pd.concat(values, axis=1).max(axis=1)


def _decide(
    strengths: Mapping[Any, Any], numbers: Mapping[Any, Any]
) -> tuple[str, float]:
    """The strongest label kind that is strong enough; else hard, or nothing."""
    alone = bool(np.isnan(numbers["row_dice"]))
    enough = {
        OVER: _matters(numbers["too_large_z"], -numbers["others_volume"]),
        UNDER: _matters(numbers["too_small_z"], numbers["others_volume"]),
        # What lies elsewhere does not fit as a whole, whatever its labels.
        DISPLACED: numbers["others_dice"] <= -SMALLEST_EFFECT["dice"]
        or numbers["edit"] == MOVED,
        EXCHANGED: numbers["gain"] >= SMALLEST_GAIN,
    }
    least = STRONG_ALONE if alone else STRONG
    strong = {k: float(s) for k, s in strengths.items() if s >= least and enough[k]}
    if EXCHANGED in strong:
        # Its labels are misplaced, too; that exchanging helps, only it explains.
        return EXCHANGED, strong[EXCHANGED]
    if strong:
        kind = max(strong, key=lambda name: strong[name])
        # What lies elsewhere has another volume, too.
        if strong.get(DISPLACED, 0.0) >= AS_STRONG * strong[kind]:
            kind = DISPLACED
        return kind, strong[kind]
    if numbers["others_dice_z"] <= HARD_Z and numbers["others_dice"] <= HARD_DICE:
        return HARD, float(-numbers["others_dice_z"])
    return NOTHING, 0.0


def _matters(edit_z: float, volume: float) -> bool:
    """Whether a map of another size would fit better; by volume where nobody tried."""
    if np.isnan(edit_z):
        return volume >= SMALLEST_EFFECT["volume"]
    return edit_z >= UNTOUCHED


def _worst_channel(channels: pd.DataFrame | None, cases: Sequence[str]) -> pd.DataFrame:
    empty: dict[str, Any] = dict.fromkeys(("channel", "number", "beside"), "")
    empty |= dict.fromkeys(("channel_score", "z"), np.nan)
    if channels is None or channels.empty:
        return pd.DataFrame(empty, index=pd.Index(cases, name="case"))
    worst = channels.loc[channels.groupby("case")["score"].idxmax()].set_index("case")
    worst = worst.rename(columns={"score": "channel_score"})
    several = channels["channel"].nunique() > 1
    worst["beside"] = "the other channels" if several else "is usual"
    return worst[list(empty)].reindex(list(cases))


def _in_words(numbers: Mapping[Any, Any]) -> str:
    """What is done to a label map: "drawn 2 mm narrower"."""
    edit, by = numbers["edit"], numbers["edit_by"]
    if edit == MOVED:
        return f"moved by {by:.3g} mm"
    if edit in (REMOVED, ADDED):
        return f"with a piece of {by:.0%} of it {edit}"
    return f"drawn {by:.3g} mm {edit}"


def _evidence(kind: str, numbers: Mapping[Any, Any], image: Mapping[Any, Any]) -> str:
    """The numbers behind a kind, in words."""
    taught = not np.isnan(numbers["row_dice"])
    plain = short(kind)
    undone = UNDONE.get(numbers["edit"]) == plain
    better = f"{_in_words(numbers)}, it fits by {numbers['edit_gain']:+.2f} Dice; "
    if plain in (OVER, UNDER):
        others, row = np.exp([numbers["others_volume"], numbers["row_volume"]])
        text = f"others draw {others:.2f} times the usual share of it"
        text = better + text if undone else text
        return f"{text}, its model {row:.2f} times that of others" if taught else text
    if plain == DISPLACED:
        text = (
            f"others match it by {numbers['others_precision']:+.2f} in precision and "
            f"{numbers['others_recall']:+.2f} in recall"
        )
        text = better + text if undone else text
    elif plain == EXCHANGED:
        text = f"exchanged back, the two labels match by {numbers['gain']:+.2f} Dice"
        gain = f"{numbers['row_exchange']:+.2f}"
        return f"{text}, in what its model draws by {gain}" if taught else text
    elif plain == BAD_IMAGE:
        return (
            f"{image['channel']} is {image['channel_score']:.1f} times as unlike the "
            f"cohort's as {image['beside']} ({image['number']}: z {image['z']:+.1f})"
        )
    elif plain == HARD:
        text = f"others reach {numbers['others_dice']:+.2f} Dice on it"
    else:
        return ""
    cost = f"{numbers['row_dice']:+.2f}"
    return f"{text}, its model changes Dice on others by {cost}" if taught else text
