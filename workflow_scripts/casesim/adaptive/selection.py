"""Which models segment a case: ranked by predicted Dice, weighted for an ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from casesim.adaptive.table import BASE, FINETUNED
from casesim.inference.overlap import MEAN

# Models that would be heard less than this are not asked: each is a forward pass. Of
# many models, those with less than half of what each had if all were alike.
LEAST_WEIGHT = 0.01
LEAST_SHARE = 0.5

COLUMNS = (
    *("rank", "model", "predicted_dice", "low", "high"),
    *("spread", "weight", "confidence", "calibrated"),
)
# Of a label: the weight of a model where that label is decided on.
WEIGHT_OF = "weight_"


def select(
    predicted: pd.DataFrame, region: str, labels: Sequence[str], temperature: float
) -> pd.DataFrame:
    """Rank all models for one case, best first.

    A model may be good at one label and bad at another (one that was fine-tuned on a
    case without enhancement, say). So it has a weight for each: exp(predicted /
    temperature) over its sum (a softmax), of the Dice predicted in that label; weights
    below `LEAST_WEIGHT` (or, of more than 50 models, below `LEAST_SHARE` of the mean
    weight) are set to 0 and the rest fill up to 1. `weight` is their mean.
    Ranked by another region than the mean over labels, models have the same weight
    everywhere, by what is predicted in that region.

    Where nothing was calibrated, the raw confidence takes the place of the predicted
    Dice, which stays empty.

    Args:
        predicted: from `regressor.predict`, one case, all regions. A model without a
            value comes last and has no weight; the order of rows does not matter. A
            label in which no model has a value is weighted as the region is.
        region: whose predicted Dice ranks.
        labels: names of the labels without the background, by number.
        temperature: above 0, in units of Dice.

    Returns:
        `COLUMNS` and, for each label, `WEIGHT_OF` it; ties by the model's name.

    Raises:
        ValueError: no model has a value in the region.
    """
    rows = predicted[predicted["region"] == region]
    calibrated = bool(rows["predicted_dice"].notna().any())
    column = "predicted_dice" if calibrated else "confidence"
    table = rows.assign(value=rows[column].astype(float)).sort_values(
        ["value", "model"], ascending=[False, True], na_position="last"
    )
    if table["value"].isna().all():
        raise ValueError("no model has a predicted Dice or a confidence")
    weights = {}
    for label in labels:
        of_label = predicted[predicted["region"] == label].set_index("model")[column]
        value = of_label.reindex(table["model"]).to_numpy(dtype=float)
        if region != MEAN or np.isnan(value).all():
            value = table["value"].to_numpy(dtype=float)
        weights[WEIGHT_OF + label] = _weights(value, temperature)
    return table.assign(
        rank=range(1, len(table) + 1),
        weight=np.mean(list(weights.values()), axis=0),
        calibrated=calibrated,
        **weights,
    )[[*COLUMNS, *weights]].reset_index(drop=True)


def _weights(value: np.ndarray, temperature: float) -> np.ndarray:
    weight = np.nan_to_num(np.exp((value - np.nanmax(value)) / temperature))
    weight = weight / weight.sum()
    least = min(LEAST_WEIGHT, LEAST_SHARE / len(weight))
    weight = np.where(weight >= least, weight, 0)
    return weight / weight.sum()


def members(selection: pd.DataFrame) -> dict[str, float]:
    """Models that have a weight in the ensemble, with its mean over labels, by rank."""
    heard = selection[selection["weight"] > 0]
    return dict(zip(heard["model"], heard["weight"].astype(float), strict=True))


def by_class(selection: pd.DataFrame) -> dict[str, list[float]]:
    """The same with their weights in each class, the background first, which has the
    mean over labels: `ensemble.Weights`."""
    labels = [name for name in selection if str(name).startswith(WEIGHT_OF)]
    heard = selection[selection["weight"] > 0]
    rows = heard[["weight", *labels]].astype(float).to_numpy().tolist()
    return dict(zip(heard["model"], rows, strict=True))


def leaned_on(selection: pd.DataFrame, number: int) -> list[str]:
    """The train cases, at most `number`, whose models weigh most in the ensemble, the
    heaviest first, ties by rank; none where the base alone is heard."""
    heaviest = selection.sort_values(["weight", "rank"], ascending=[False, True])
    return _train_cases(heaviest[heaviest["weight"] > 0])[:number]


def suited(selection: pd.DataFrame, number: int) -> list[str]:
    """The train cases of the `number` best fine-tuned models, best first, whether they
    are heard or not."""
    return _train_cases(selection.sort_values("rank"))[:number]


def _train_cases(selection: pd.DataFrame) -> list[str]:
    return [m.removeprefix(FINETUNED) for m in selection["model"] if m != BASE]
