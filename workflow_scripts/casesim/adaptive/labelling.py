"""How far a case lies from those with known labels, and which one to label next."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from casesim.adaptive.outlook import ODD
from casesim.adaptive.table import BASE, FEATURES
from casesim.inference.overlap import MEAN
from casesim.similarity.matrix import own_cells


def profiles(features: pd.DataFrame) -> pd.DataFrame:
    """What is known of each case without a label, a row each: the base model's features
    in all regions, and the middle and spread of all models' confidence."""
    of_base = features[features["model"] == BASE]
    wide = of_base.pivot(index="case", columns="region", values=list(FEATURES))
    wide.columns = [" ".join(map(str, pair)) for pair in wide.columns.to_list()]
    for column in wide:
        if str(column).startswith("volume_ml"):
            wide[column] = np.log1p(wide[column])
    every = features[features["region"] == MEAN].groupby("case")["expected_dice"]
    return wide.assign(confidence_median=every.median(), confidence_sd=every.std())


def novelty(
    calibration: pd.DataFrame,
    case: pd.Series,
    patients: Mapping[str, str] | None = None,
) -> float:
    """How far out a case lies: the share of calibration cases that have a nearer
    nearest neighbour among the calibration cases (of other patients).

    Distances are Euclidean over columns in units of the calibration cases' standard
    deviation; what is undefined counts as the mean, constant columns do not count.

    Args:
        calibration: from `profiles`, without the case.
        case: a row of the same columns.
        patients: as in `matrix.own_cells`.

    Returns:
        0 to 1; NaN with fewer than three calibration cases.
    """
    if len(calibration) < 3:
        return np.nan
    mean, sd = calibration.mean(), calibration.std()
    used = sd.index[sd > 0]
    known = ((calibration - mean) / sd)[used].fillna(0).to_numpy(dtype=float)
    asked = ((case - mean) / sd)[used].fillna(0).to_numpy(dtype=float)
    apart = np.linalg.norm(known[:, None] - known[None], axis=2)
    cases = list(map(str, calibration.index))
    apart[own_cells(cases, cases, patients)] = np.inf
    nearest = np.linalg.norm(known - asked, axis=1).min()
    return float((apart.min(axis=1) < nearest).mean())


def labelling_order(cases: pd.DataFrame) -> pd.DataFrame:
    """In which order to label new cases: by what a label is expected to bring.

    gain = (1 - predicted Dice) * (1 + novelty): what the models lack on the case, up to
    doubled for a case unlike those whose labels are known. Beyond `outlook.ODD` a
    prediction is worth nothing, and counts as 0. A ranking, not a forecast of how much
    a model would improve. Where nothing is predicted, the raw confidence takes the
    place of the predicted Dice.

    Args:
        cases: `case, predicted_dice, confidence, novelty`.

    Returns:
        `order, case, expected_gain, predicted_dice, novelty`, first one first; ties by
        case id.
    """
    quality = cases["predicted_dice"].astype(float)
    quality = quality.fillna(cases["confidence"].astype(float))
    novelty = cases["novelty"].astype(float).fillna(0)
    gain = (1 - quality.mask(novelty > ODD, 0.0)) * (1 + novelty)
    table = cases.assign(expected_gain=gain).sort_values(
        ["expected_gain", "case"], ascending=[False, True], na_position="last"
    )
    columns = ["order", "case", "expected_gain", "predicted_dice", "novelty"]
    return table.assign(order=range(1, len(table) + 1))[columns].reset_index(drop=True)
