"""How good the segmentation of a new case will be, in a number, an interval and words.

What is predicted is the Dice of the weighted ensemble, which is delivered, and not that
of a single model. Its error is known from the calibration cases, each segmented with a
selection that was made out of fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from casesim.adaptive import conformal
from casesim.adaptive.baselines import ADAPTIVE
from casesim.adaptive.table import patients_of

# The share of calibration cases that a case may be farther out than.
ODD = 0.95

AS_GOOD = "as good as most calibration cases"
BELOW = "below the middle of the calibration cases"
LOOK = "look at this one"
UNLIKE = "look at this one: unlike the calibration cases, it may be far worse"
UNCALIBRATED = "not calibrated: too few calibration cases to predict a Dice"
NEEDS_A_LOOK = (LOOK, UNLIKE)


@dataclass(frozen=True)
class Outlook:
    """How the ensemble's Dice follows from its members' predictions.

    Attributes:
        offset: median of true Dice minus the weighted mean of the predictions.
        quantile: conformal, in units of the members' spread; infinite where there are
            too few cases.
        dice: the ensemble's Dice on the calibration cases, sorted.
    """

    offset: float
    quantile: float
    dice: tuple[float, ...]


def weighted(selection: pd.DataFrame) -> tuple[float, float]:
    """Mean of the members' predicted Dice, and of half their intervals, by weight."""
    heard = selection[selection["weight"] > 0]
    weights = heard["weight"].to_numpy(dtype=float)
    predicted = heard["predicted_dice"].to_numpy(dtype=float)
    spread = heard["spread"].to_numpy(dtype=float)
    return float(weights @ predicted), float(weights @ spread)


def of_cases(
    selections: Mapping[str, pd.DataFrame], scores: pd.DataFrame, region: str
) -> pd.DataFrame:
    """What `learn` needs of the calibration cases.

    Args:
        selections: of each case, made out of fold.
        scores: of the segmentation `adaptive` on each case.
        region: that the selections are of.

    Returns:
        `predicted`, `spread` and `dice`, a row for each case.
    """
    own = scores[(scores["model"] == ADAPTIVE) & (scores["region"] == region)]
    dice = own.set_index("case")["dice"].astype(float)
    rows = {case: (*weighted(table), dice[case]) for case, table in selections.items()}
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["predicted", "spread", "dice"]
    )


def learn(
    cases: pd.DataFrame, level: float, patients: Mapping[str, str] | None = None
) -> Outlook:
    """From calibration cases: `predicted`, `spread` (from `weighted`) and `dice`, the
    ensemble's, one row a case; undefined ones are left out.

    One error a case: with n of them, split conformal prediction. That the offset is
    learnt from the same cases lowers the coverage by 0.01 of 20 cases and by 0.002 of
    100 (normal errors, simulated). `patients` says which cases are of one patient; the
    others are patients of their own.
    """
    known = cases.dropna(subset=["predicted", "dice"])
    if known.empty:
        return Outlook(np.nan, np.inf, ())
    offset = float((known["dice"] - known["predicted"]).median())
    error = (known["dice"] - known["predicted"] - offset).abs() / known["spread"]
    patient = patients_of(pd.Series(known.index, known.index), patients)
    quantile = conformal.quantile(error, patient, level)
    return Outlook(offset, quantile, tuple(sorted(map(float, known["dice"]))))


def as_record(outlook: Outlook) -> dict[str, Any]:
    """As plain values; None for a quantile that is infinite."""
    quantile = outlook.quantile if np.isfinite(outlook.quantile) else None
    return {**asdict(outlook), "quantile": quantile, "dice": list(outlook.dice)}


def from_record(record: Mapping[str, Any]) -> Outlook:
    """The inverse of `as_record`."""
    offset, quantile = record["offset"], record["quantile"]
    return Outlook(
        np.nan if offset is None else float(offset),
        np.inf if quantile is None else float(quantile),
        tuple(map(float, record["dice"])),
    )


def predict(outlook: Outlook, predicted: float, spread: float) -> tuple[float, ...]:
    """Predicted Dice of the ensemble with the limits of its interval."""
    centre = np.clip(np.array([predicted + outlook.offset]), 0, 1)
    low, high = conformal.interval(centre, np.array([spread]), outlook.quantile)
    return float(centre[0]), float(low[0]), float(high[0])


def words(outlook: Outlook, predicted: float, novelty: float) -> str:
    """What to make of a prediction.

    Args:
        outlook: from `learn`.
        predicted: the ensemble's predicted Dice; NaN where nothing is calibrated.
        novelty: from `labelling.novelty`.

    Returns:
        `UNLIKE` where more than `ODD` of the calibration cases are nearer to the
        others; `AS_GOOD` for a prediction that reaches the calibration cases' median
        Dice; `LOOK` for one below their lower quartile; `BELOW` in between.
    """
    if np.isnan(predicted) or not outlook.dice:
        return UNCALIBRATED
    if novelty > ODD:
        return UNLIKE
    quartile, median = np.quantile(outlook.dice, [0.25, 0.5])
    if predicted >= median:
        return AS_GOOD
    return BELOW if predicted >= quartile else LOOK
