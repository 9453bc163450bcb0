"""The similarity classifier: Dice of any model on a case without a label.

A forest for each region learns from labelled cases that no model was trained on (the
calibration cases) how a model's confidence, its agreement with the others and its
record translate into Dice. Errors made out of fold, whole cases at a time, give the
intervals. With too few calibration cases nothing is learnt: models are then ranked by
their raw confidence, and no Dice is predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import GroupKFold

from casesim.adaptive import conformal
from casesim.adaptive.plan import MIN_CALIBRATION
from casesim.adaptive.table import (
    BASE,
    design,
    patients_of,
    row_means,
    row_means_without_own,
)

# Also the fewest patients that anything is learnt from.
FOLDS = 5
TREES = 200
# Cells of a leaf: fewer fit the noise of single cells.
MIN_LEAF = 5
# Trees that agree to the last digit do not make an error impossible.
LEAST_SPREAD = 0.02


@dataclass(frozen=True)
class Fit:
    """What was learnt in one region.

    Attributes:
        region: name.
        forest: None with fewer than `MIN_CALIBRATION` calibration cases or `FOLDS`
            patients.
        row_means: mean Dice over calibration cases, by model.
        base_dice: of train cases.
        quantiles: conformal, for the base model and for the others, in units of the
            spread of the trees.
        level: of the intervals.
        n_cases: calibration cases with a defined Dice.
        n_patients: of these.
        n_undefined: cells of calibration cases without one.
    """

    region: str
    forest: ExtraTreesRegressor | None
    row_means: dict[str, float]
    base_dice: dict[str, float]
    quantiles: dict[str, float]
    level: float
    n_cases: int
    n_patients: int
    n_undefined: int

    @property
    def calibrated(self) -> bool:
        return self.forest is not None


def fit(
    table: pd.DataFrame,
    base_dice: Mapping[str, float],
    level: float,
    seed: int = 0,
    trees: int = TREES,
    threads: int = 1,
    patients: Mapping[str, str] | None = None,
) -> tuple[Fit, pd.DataFrame]:
    """Learn from the calibration cases, one region.

    Args:
        table: `model, case, region`, features and `dice` of all models on calibration
            cases. The order of rows does not matter.
        base_dice: the base's Dice on train cases.
        level: of the intervals.
        seed: of forests and folds.
        trees: number of trees.
        threads: to fit them with; the result is the same for any number.
        patients: of calibration cases, where several are of one; the others are
            patients of their own.

    Returns:
        What was learnt; and out-of-fold predictions as `predict` gives them, with
        `dice` and `fold`: each case by a forest, row means and errors that know
        nothing of its patient. Without a forest they hold the confidence alone.
    """
    table = table.sort_values(["case", "model"]).reset_index(drop=True)
    known = table["dice"].notna()
    patient = patients_of(table["case"], patients)
    n_cases, n_patients = (int(of[known].nunique()) for of in (table["case"], patient))
    region = str(table["region"].iloc[0])
    means = {str(model): float(mean) for model, mean in row_means(table).items()}
    content = {
        "region": region,
        "row_means": means,
        "base_dice": dict(base_dice),
        "level": level,
        "n_cases": n_cases,
        "n_patients": n_patients,
        "n_undefined": int((~known).sum()),
    }
    if n_cases < MIN_CALIBRATION or n_patients < FOLDS:
        learnt = Fit(forest=None, quantiles={}, **content)  # type: ignore[arg-type]
        return learnt, predict(learnt, table).assign(dice=table["dice"], fold=-1)
    predicted = out_of_fold(table, base_dice, patient, seed, trees, threads, patients)
    quantiles = _quantiles(predicted, patient, level)
    records = row_means_without_own(table, patients)
    forest = _forest(table, table, records, base_dice, seed, trees, threads)
    learnt = Fit(forest=forest, quantiles=quantiles, **content)  # type: ignore[arg-type]
    # The interval of a patient comes from the errors of all others.
    limits = [
        _limits(rows, _quantiles(predicted[patient != own], patient, level))
        for own, rows in predicted.groupby(patient)
    ]
    return learnt, pd.concat(limits).sort_index()


def out_of_fold(
    table: pd.DataFrame,
    base_dice: Mapping[str, float],
    groups: pd.Series,
    seed: int,
    trees: int = TREES,
    threads: int = 1,
    patients: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Predictions of each row by a forest that was fitted without its group.

    Grouped by patient this is what `fit` uses; grouped by model it asks about a model
    that no calibration cell is known of, grouped by kind of case about another kind.
    Such a model has no row mean, so that the forest which is asked has learnt without
    any: one that leans on row means would take an unknown model for a common one.

    Args:
        table: as for `fit`.
        groups: of each row.
        patients: as for `fit`.

    Returns:
        `model, case, region, predicted_dice, spread, confidence, dice, fold`, in the
        order of `table`.
    """
    number = min(FOLDS, int(groups.nunique()))
    folds = GroupKFold(number, shuffle=True, random_state=seed)
    parts = []
    for fold, (inside, outside) in enumerate(folds.split(table, groups=groups)):
        learnt, asked = table.iloc[inside], table.iloc[outside]
        means = row_means(learnt)
        records = row_means_without_own(learnt, patients)
        if not set(asked["model"]) <= set(means.index):
            records[:] = np.nan
        forest = _forest(table, learnt, records, base_dice, seed, trees, threads)
        seen = _seen(table, asked, asked["model"].map(means), base_dice)
        predicted, spread = _predict(forest, seen)
        parts.append(
            asked[["model", "case", "region"]].assign(
                predicted_dice=predicted,
                spread=spread,
                confidence=asked["expected_dice"],
                dice=asked["dice"],
                fold=fold,
            )
        )
    return pd.concat(parts).sort_index()


def _seen(
    table: pd.DataFrame,
    asked: pd.DataFrame,
    row_mean: pd.Series,
    base_dice: Mapping[str, float],
) -> pd.DataFrame:
    """The design of some rows of the table, relative to the whole of their columns."""
    whole = table[table["case"].isin(set(asked["case"]))]
    return design(whole, row_mean, base_dice).loc[asked.index]


def predict(learnt: Fit, features: pd.DataFrame) -> pd.DataFrame:
    """Predicted Dice of all models on cases, one region.

    Args:
        learnt: from `fit`.
        features: `model, case, region` and features: all models on each case.

    Returns:
        `model, case, region, predicted_dice, spread, low, high, confidence`, in the
        order of `features`. Without a forest all but the confidence are NaN.
    """
    keys = features[["model", "case", "region"]]
    confidence = features["expected_dice"].astype(float)
    if learnt.forest is None:
        empty = dict.fromkeys(("predicted_dice", "spread", "low", "high"), np.nan)
        return keys.assign(**empty, confidence=confidence)
    means = features["model"].map(learnt.row_means)
    asked = design(features, means, learnt.base_dice)
    predicted, spread = _predict(learnt.forest, asked)
    rows = keys.assign(predicted_dice=predicted, spread=spread)
    return _limits(rows, learnt.quantiles).assign(confidence=confidence)


def _forest(
    table: pd.DataFrame,
    learnt: pd.DataFrame,
    records: pd.Series,
    base_dice: Mapping[str, float],
    seed: int,
    trees: int,
    threads: int,
) -> ExtraTreesRegressor:
    """Fit to the rows `learnt` of the table that have a Dice; `records` are their row
    means, each without its own patient."""
    known = learnt[learnt["dice"].notna()]
    seen = _seen(table, known, records.loc[known.index], base_dice)
    forest = ExtraTreesRegressor(
        trees, min_samples_leaf=MIN_LEAF, random_state=seed, n_jobs=threads
    )
    return forest.fit(seen.to_numpy(), known["dice"].to_numpy())


def _predict(
    forest: ExtraTreesRegressor, asked: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the trees and their standard deviation, which says how hard it is
    (Johansson et al., Mach. Learn. 97:155, 2014)."""
    values = asked.to_numpy().astype(np.float32)
    trees = np.array([tree.predict(values) for tree in forest.estimators_])
    return trees.mean(axis=0), trees.std(axis=0) + LEAST_SPREAD


def _kind(models: pd.Series) -> pd.Series:
    return pd.Series(
        np.where(models == BASE, BASE, "finetuned"), index=models.index, dtype="str"
    )


def _quantiles(
    predicted: pd.DataFrame, patient: pd.Series, level: float
) -> dict[str, float]:
    """The base model's errors are not those of models of one case: each by its own."""
    error = (predicted["dice"] - predicted["predicted_dice"]).abs()
    score = error / predicted["spread"]
    kinds = _kind(predicted["model"])
    return {
        str(kind): conformal.quantile(score[kinds == kind], patient[rows.index], level)
        for kind, rows in predicted.groupby(kinds)
    }


def _limits(rows: pd.DataFrame, quantiles: Mapping[str, float]) -> pd.DataFrame:
    of_row = _kind(rows["model"]).map(dict(quantiles)).to_numpy(dtype=float)
    low, high = conformal.interval(
        rows["predicted_dice"].to_numpy(), rows["spread"].to_numpy(), of_row
    )
    return rows.assign(low=low, high=high)
