"""One small comparison of two seeds, for the tests of this folder."""

import math

import pandas as pd

from casesim.pruning.arms import Retrained
from casesim.pruning.comparison import comparison

NAN = math.nan

COHORT = pd.DataFrame(
    {
        "case": ["p1", "p2", "p3", "h1", "h2"],
        "role": ["pool", "pool", "pool", "held_out", "held_out"],
        "train_case": ["true", "true", "false", "false", "false"],
        "planted": ["", "", "", "", ""],
    }
)

MODELS: dict[str, Retrained] = {
    "worst_cluster": {"arm": "worst_cluster", "seed": 0},
    "full-seed1": {"arm": "full", "seed": 1},
    "worst_cluster-seed1": {"arm": "worst_cluster", "seed": 1},
}

REMOVED = {"worst_cluster": ["p1"]}


def scores(model: str, *dice: float, region: str = "mean") -> pd.DataFrame:
    cases = COHORT["case"][: len(dice)]
    return pd.DataFrame({"model": model, "case": cases, "region": region, "dice": dice})


BEFORE = [
    scores("base", 0.5, 0.6, 0.7, 0.8, 0.9),
    scores("retrained/full-seed1", 0.4, 0.4, 0.4, 0.4, NAN),
]

AFTER = [
    scores("retrained/worst_cluster", 0.3, 0.6, 0.75, 0.9, 0.9),
    scores("retrained/worst_cluster-seed1", 0.4, 0.5, 0.4, 0.6, 0.9),
]


def compare(
    before: list[pd.DataFrame] = BEFORE,
    after: list[pd.DataFrame] = AFTER,
    removed: dict[str, list[str]] = REMOVED,
    cohort: pd.DataFrame = COHORT,
) -> pd.DataFrame:
    return comparison(before, after, MODELS, 0, removed, cohort)
