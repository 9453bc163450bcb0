"""All that held-out cases say of this stage, from the tables of the workflow.

Here, and nowhere before, the labels of held-out cases are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from casesim.adaptive import baselines, outlook, quality, validation
from casesim.adaptive.baselines import ADAPTIVE, UNIFORM_KEPT
from casesim.adaptive.table import BASE, patients_of

FULL = "full_retrained"
# What the contrasts of most interest are with, first the one that decides.
HEADLINES = ("continued_kept", "continued_full", UNIFORM_KEPT, BASE)


@dataclass(frozen=True)
class Cells:
    """What is judged: everything about held-out cases.

    Attributes:
        region: that models were ranked by.
        predicted: predictions of all models, all regions.
        selections: by case.
        scores: Dice of the candidates (`table.score_case`).
        method_scores: Dice of ensembles and trained controls, likewise.
        full: score tables of the models of the full pool, by seed.
        row_means: mean Dice over calibration cases in `region`, by model.
        outlook: how the ensemble's Dice is predicted.
        images: `confidence.image_statistics` by case.
        train: train cases.
        removed: those of the worst cluster.
        base_seed: the base model's seed.
        patients: of held-out cases that are not alone, as in `matrix.own_cells`: in
            means of methods, their intervals and verdicts a patient counts once.
    """

    region: str
    predicted: pd.DataFrame
    selections: Mapping[str, pd.DataFrame]
    scores: pd.DataFrame
    method_scores: pd.DataFrame
    full: Mapping[int, pd.DataFrame]
    row_means: Mapping[str, float]
    outlook: outlook.Outlook
    images: Mapping[str, Sequence[Sequence[float]]]
    train: Sequence[str]
    removed: Sequence[str]
    base_seed: int
    patients: Mapping[str, str] = field(default_factory=dict)


def dice_of_methods(cells: Cells) -> pd.DataFrame:
    """Every method on every held-out case: `validation.COLUMNS`."""
    columns = ["case", "region", "dice"]
    parts = []
    for case, selection in cells.selections.items():
        of_train = {name: cells.images[name] for name in cells.train}
        nearest = baselines.nearest_by_image(of_train, cells.images[case])
        chosen = baselines.single_models(selection, cells.row_means, nearest)
        of_case = cells.scores[cells.scores["case"] == case]
        for method, model in chosen.items():
            rows = of_case[of_case["model"] == model][columns]
            parts.append(rows.assign(method=method, seed=cells.base_seed))
    best = baselines.oracle(cells.scores)
    parts.append(best.assign(method=validation.ORACLE, seed=cells.base_seed))
    for key, rows in cells.method_scores.groupby("model"):
        name, _, seed = str(key).partition("/seed")
        parts.append(
            rows[columns].assign(method=name, seed=int(seed or cells.base_seed))
        )
    if len(cells.full) > 1:
        judges = set(cells.selections)
        for number, rows in cells.full.items():
            own = rows[rows["case"].isin(judges)][columns]
            parts.append(own.assign(method=FULL, seed=number))
    return pd.concat(parts, ignore_index=True)[list(validation.COLUMNS)]


def methods(cells: Cells) -> pd.DataFrame:
    """`validation.methods` in every region, the one of the ranking first."""
    table = validation.by_patient(dice_of_methods(cells), cells.patients)
    others = [name for name in dict.fromkeys(table["region"]) if name != cells.region]
    found = []
    for region in [cells.region, *others]:
        rows = validation.methods(table[table["region"] == region])
        rows.insert(0, "region", region)
        found.append(rows)
    return pd.concat(found, ignore_index=True)


def delivered(cells: Cells) -> pd.DataFrame:
    """The prediction for the adaptive segmentation of each held-out case, and what it
    came to: `predicted_dice, low, high, dice`, by case."""
    own = cells.method_scores[cells.method_scores["model"] == ADAPTIVE]
    dice = own[own["region"] == cells.region].set_index("case")["dice"].astype(float)
    rows = {
        case: (
            *outlook.predict(cells.outlook, *outlook.weighted(selection)),
            dice[case],
        )
        for case, selection in cells.selections.items()
    }
    columns = ["predicted_dice", "low", "high", "dice"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def joined(cells: Cells) -> pd.DataFrame:
    """Predictions and Dice of the candidates in the region of the ranking."""
    keys = ["model", "case", "region"]
    table = cells.predicted.merge(cells.scores[[*keys, "dice"]], on=keys)
    return table[table["region"] == cells.region].reset_index(drop=True)


def judge(cells: Cells) -> dict[str, Any]:
    """Everything as plain values: `validation.json`.

    `base` and `adaptive`: quality of the predictions for these segmentations;
    `raw_confidence`: of the base's own, uncalibrated; `poor`: how well cases below a
    Dice of 0.5 are told by the base's prediction (AUROC); `within_columns`: rank
    correlations over sound rows; `contrasts` and `verdicts` as `validation` has them;
    `gap_closed` of the adaptive segmentation.
    """
    table = joined(cells)
    base = table[table["model"] == BASE].set_index("case")
    mean = cells.row_means.get(BASE, math.nan)
    final = delivered(cells)
    means = table["model"].map(dict(cells.row_means))
    scores = ["predicted_dice", "confidence", "row_mean"]
    within = quality.within_columns(table.assign(row_mean=means), scores, cells.removed)
    patient = patients_of(within.index.to_series(), cells.patients)
    within = within.groupby(patient).mean()
    ahead = within["predicted_dice"] - within["row_mean"]
    dice = validation.by_patient(dice_of_methods(cells), cells.patients)
    primary = dice[dice["region"] == cells.region]
    contrasts = validation.contrasts(primary)
    of_methods = validation.methods(primary).set_index("method")
    return {
        "region": cells.region,
        "held_out_cases": len(cells.selections),
        "calibrated": bool(table["predicted_dice"].notna().any()),
        "base": quality.of_predictions(
            base["predicted_dice"], base["dice"], mean, base["low"], base["high"]
        ),
        "raw_confidence": quality.of_predictions(
            base["confidence"], base["dice"], mean
        ),
        "adaptive": quality.of_predictions(
            final["predicted_dice"],
            final["dice"],
            float(np.mean(cells.outlook.dice)) if cells.outlook.dice else math.nan,
            final["low"],
            final["high"],
        ),
        "poor": quality.auroc(
            -base["predicted_dice"], (base["dice"] < 0.5).where(base["dice"].notna())
        ),
        "within_columns": {
            **{name: quality.mean_with_interval(within[name]) for name in scores},
            "predicted_minus_row_mean": quality.mean_with_interval(ahead),
        },
        "gap_closed": float(of_methods["gap_closed"][ADAPTIVE]),
        "contrasts": contrasts,
        "verdicts": {
            reference: contrasts[ADAPTIVE][reference]["sentence"]
            for reference in HEADLINES
            if reference in contrasts.get(ADAPTIVE, {})
        },
    }


def points(cells: Cells) -> pd.DataFrame:
    """Predicted and true Dice of each held-out case: `kind` (`base`, `adaptive`),
    `case, predicted_dice, low, high, dice`."""
    table = joined(cells)
    base = table[table["model"] == BASE].set_index("case")
    parts = {"base": base, "adaptive": delivered(cells)}
    columns = ["predicted_dice", "low", "high", "dice"]
    named = [part[columns].assign(kind=kind) for kind, part in parts.items()]
    return pd.concat(named).rename_axis("case").reset_index()


def sentences(content: Mapping[str, Any]) -> list[str]:
    """What came out, for a log."""
    if content["calibrated"]:
        what = {BASE: "base model", ADAPTIVE: "adaptive segmentation"}
        found = [_predictions(content, name, of) for name, of in what.items()]
    else:
        found = [
            "Too few calibration cases to predict a Dice: models are ranked by raw "
            "confidence."
        ]
    return [*found, *content["verdicts"].values()]


def headlines(content: Mapping[str, Any]) -> list[str]:
    """Those that matter most: how good the predictions are, if there are any, and the
    verdicts against the control that decides and against what comes closest, if that is
    something else: a control may have gone astray.

    Args:
        content: `validation.json`, as it is read.
    """
    found = []
    if content["calibrated"]:
        found.append(_predictions(content, ADAPTIVE, "adaptive segmentation"))
    decisive = list(content["verdicts"])[:1]
    found += [content["verdicts"][reference] for reference in decisive]
    contrasts = content["contrasts"].get(ADAPTIVE, {})
    known = {
        reference: contrast["mean"]
        for reference, contrast in contrasts.items()
        if reference != validation.ORACLE and not validation.is_random(reference)
        # JSON has no NaN.
        if contrast["mean"] is not None and not math.isnan(contrast["mean"])
    }
    if known and (closest := min(known, key=known.__getitem__)) not in decisive:
        found.append(f"The best of the rest. {contrasts[closest]['sentence']}")
    return found


def _predictions(content: Mapping[str, Any], name: str, what: str) -> str:
    of = content[name]
    if of["n"] < 2:
        return f"Predicted Dice of the {what}: too few held-out cases to judge it."
    # Not "-0.000".
    bias = round(of["bias"], 3) + 0.0
    return (
        f"Predicted Dice of the {what}: mean error {of['mae']:.3f} "
        f"({of['mae_of_mean']:.3f} if the calibration cases' mean were said of all), "
        f"bias {bias:+.3f}, rank correlation "
        f"{quality.correlation(of['rank_correlation'])}, interval holds "
        f"{of['coverage']:.0%} of {of['n']} cases ({content['level']:.0%} promised)."
    )
