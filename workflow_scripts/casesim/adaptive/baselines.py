"""What the adaptive segmentation has to beat: other choices from the same models."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from casesim.adaptive.ensemble import Weight
from casesim.adaptive.selection import by_class
from casesim.adaptive.table import BASE, FINETUNED

ADAPTIVE = "adaptive"
UNIFORM = "uniform_all"
UNIFORM_KEPT = "uniform_without_worst"
RANDOM = "random_"


def ensembles(
    case: str,
    selection: pd.DataFrame,
    train: Sequence[str],
    removed: Collection[str],
    size: int,
    draws: int,
    seed: int,
) -> dict[str, dict[str, Weight]]:
    """Weights of the models in every ensemble that is made for a held-out case.

    * `adaptive`: the selection's weights, label by label;
    * `uniform_all`: the base and all fine-tuned models alike;
    * `uniform_without_worst`: the same without the models of the worst cluster;
    * `random_<r>`: `size` of all models, drawn anew for each case.

    Args:
        case: its id.
        selection: of the case, from `selection.select`.
        train: train cases.
        removed: those in the worst cluster.
        size: members of a random ensemble.
        draws: number of random ensembles.
        seed: of the draws.
    """
    every = [BASE, *(FINETUNED + case for case in train)]
    kept = [m for m in every if m.removeprefix(FINETUNED) not in removed]
    found: dict[str, dict[str, Weight]] = {
        ADAPTIVE: dict(by_class(selection)),
        UNIFORM: dict.fromkeys(every, 1.0),
        UNIFORM_KEPT: dict.fromkeys(kept, 1.0),
    }
    for draw in range(1, draws + 1):
        # A string seeds through SHA-512: the same draw on every machine and version.
        generator = random.Random(f"{seed}/{draw}/{case}")
        drawn = generator.sample(every, min(size, len(every)))
        found[f"{RANDOM}{draw}"] = dict.fromkeys(sorted(drawn), 1.0)
    return found


def nearest_by_image(
    of_train: Mapping[str, Sequence[Sequence[float]]],
    of_case: Sequence[Sequence[float]],
) -> str:
    """The train case whose image statistics are nearest; ties by case id.

    Euclidean distance in units of the train cases' standard deviation; statistics that
    are the same in all train cases do not count.

    Args:
        of_train: `confidence.image_statistics` (channel, statistic) by train case.
        of_case: of the case in question.
    """
    cases = sorted(of_train)
    known = np.array([np.ravel(of_train[case]) for case in cases], dtype=float)
    sd = known.std(axis=0)
    apart = (known - np.ravel(of_case))[:, sd > 0] / sd[sd > 0]
    return cases[int(np.argmin(np.linalg.norm(apart, axis=1)))]


def single_models(
    selection: pd.DataFrame,
    row_means: Mapping[str, float],
    nearest: str | None,
) -> dict[str, str]:
    """One model for a case by each way to choose one without its label.

    Args:
        selection: of the case.
        row_means: mean Dice over calibration cases, by model.
        nearest: from `nearest_by_image`, None where it is unknown.

    Returns:
        `pick` (best predicted), `best_row_mean` (the same for every case),
        `confidence_alone`, `nearest_by_image` and `base`; ties by the model's name.
    """
    ordered = selection.sort_values("model")
    means = ordered["model"].map(dict(row_means)).fillna(-np.inf).to_numpy(dtype=float)
    models = list(ordered["model"])
    confidence = ordered["confidence"].fillna(-np.inf).to_numpy(dtype=float)
    found = {
        BASE: BASE,
        "pick": str(selection.sort_values("rank")["model"].iloc[0]),
        "best_row_mean": models[int(np.argmax(means))],
        "confidence_alone": models[int(np.argmax(confidence))],
    }
    if nearest is not None:
        found["nearest_by_image"] = FINETUNED + nearest
    return found


def oracle(dice: pd.DataFrame) -> pd.DataFrame:
    """The best Dice of any single model on each case: what a perfect choice of one
    model would reach. Needs the labels.

    Args:
        dice: `model, case, region, dice`.

    Returns:
        `case, region, dice`; NaN where no model has a defined Dice.
    """
    return dice.groupby(["case", "region"])["dice"].max().reset_index()
