"""How good the predictions of Dice are, on cases that had no part in making them."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn import metrics

from casesim.adaptive.table import BASE, FINETUNED
from casesim.pruning.statistics import bootstrap_interval


def of_predictions(
    predicted: pd.Series,
    dice: pd.Series,
    mean_of_calibration: float,
    low: pd.Series | None = None,
    high: pd.Series | None = None,
) -> dict[str, Any]:
    """One prediction for each case against the true Dice.

    Args:
        predicted, dice: by case; pairs with an undefined value are left out.
        mean_of_calibration: what would be said of every case if nothing were known of
            it: the mean Dice of the calibration cases.
        low, high: limits of the intervals, by case.

    Returns:
        `n`, `n_undefined`, `mae` (mean absolute error), `mae_of_mean` and `mae_ratio`
        (against `mean_of_calibration`), `bias` (predicted minus true),
        `rank_correlation` (Spearman), and, with limits, `coverage` and `width`. NaN for
        fewer than two pairs.
    """
    known = predicted.notna() & dice.notna()
    predicted, dice = predicted[known], dice[known]
    n = int(known.sum())
    result: dict[str, Any] = {"n": n, "n_undefined": int((~known).sum())}
    names = ["mae", "mae_of_mean", "mae_ratio", "bias", "rank_correlation"]
    if low is not None:
        names += ["coverage", "width"]
    if n < 2:
        return result | dict.fromkeys(names, math.nan)
    error = (predicted - dice).abs().mean()
    of_mean = (mean_of_calibration - dice).abs().mean()
    result |= {
        "mae": float(error),
        "mae_of_mean": float(of_mean),
        "mae_ratio": float(error / of_mean) if of_mean > 0 else math.nan,
        "bias": float((predicted - dice).mean()),
        "rank_correlation": spearman(predicted, dice),
    }
    if low is not None and high is not None:
        inside = (low[known] <= dice) & (dice <= high[known])
        result["coverage"] = float(inside.mean())
        result["width"] = float((high[known] - low[known]).mean())
    return result


def spearman(one: pd.Series, other: pd.Series) -> float:
    """Spearman's rank correlation; NaN if either is constant or short."""
    known = one.notna() & other.notna()
    one, other = one[known], other[known]
    if len(one) < 3 or one.nunique() < 2 or other.nunique() < 2:
        return math.nan
    return float(stats.spearmanr(one, other).statistic)


def correlation(value: float | None) -> str:
    """A correlation in a sentence; None as JSON has it, which knows no NaN."""
    return "undefined" if value is None or math.isnan(value) else f"{value:.2f}"


def within_columns(
    table: pd.DataFrame, scores: Collection[str], removed: Collection[str]
) -> pd.DataFrame:
    """For each case, how well each score ranks the models that were fine-tuned on a
    sound case: Spearman's correlation with their true Dice.

    Which model is best on a case is one question, how hard the case is another: within
    a column only the first is asked. The base and the rows of the worst cluster, which
    are easy to tell, are left out.

    Args:
        table: `model, case, dice` and the scores, one region.
        scores: names of columns.
        removed: train cases of the worst cluster.

    Returns:
        A row for each case, a column for each score; NaN where it is undefined.
    """
    train_case = table["model"].str.removeprefix(FINETUNED)
    sound = (table["model"] != BASE) & ~train_case.isin(set(removed))
    rows = {
        case: {score: spearman(cells[score], cells["dice"]) for score in scores}
        for case, cells in table[sound].groupby("case")
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(scores))


def mean_with_interval(values: pd.Series, seed: int = 0) -> dict[str, Any]:
    """Mean over cases with a 95 % bootstrap interval; undefined ones are left out."""
    known = values.dropna().to_numpy(dtype=float)
    low, high = bootstrap_interval(known[np.newaxis], seed=seed)
    mean = float(known.mean()) if known.size else math.nan
    return {"n": int(known.size), "mean": mean, "ci_low": low, "ci_high": high}


def auroc(score: pd.Series, positive: pd.Series) -> float:
    """Probability that a positive case has the higher score; NaN without both kinds.

    Cases without a score are left out, and those of which nobody knows (NA) whether
    they are positive.
    """
    known = score.notna() & positive.notna()
    score, positive = score[known], positive[known].astype(bool)
    if positive.all() or not positive.any():
        return math.nan
    return float(metrics.roc_auc_score(positive, score))
