"""Which models segment a case: ranked by predicted Dice, weighted for an ensemble."""

from __future__ import annotations

import numpy as np
import pandas as pd

from casesim.adaptive.table import BASE, FINETUNED

# Models that would be heard less than this are not asked: each is a forward pass.
LEAST_WEIGHT = 0.01

COLUMNS = (
    *("rank", "model", "predicted_dice", "low", "high"),
    *("spread", "weight", "confidence", "calibrated"),
)


def select(predicted: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """Rank all models for one case, best first.

    The weight is exp(predicted / temperature) over its sum (a softmax); weights below
    `LEAST_WEIGHT` are set to 0 and the rest fill up to 1. Where nothing was calibrated,
    the raw confidence takes the place of the predicted Dice, which stays empty.

    Args:
        predicted: from `regressor.predict`, one case and one region. A model without a
            value comes last and has no weight; the order of rows does not matter.
        temperature: above 0, in units of Dice.

    Returns:
        `COLUMNS`; ties by the model's name.

    Raises:
        ValueError: no model has a value.
    """
    calibrated = bool(predicted["predicted_dice"].notna().any())
    value = predicted["predicted_dice" if calibrated else "confidence"].astype(float)
    if value.isna().all():
        raise ValueError("no model has a predicted Dice or a confidence")
    table = predicted.assign(value=value).sort_values(
        ["value", "model"], ascending=[False, True], na_position="last"
    )
    weight = np.exp((table["value"] - table["value"].max()) / temperature).fillna(0)
    weight = weight / weight.sum()
    weight = weight.where(weight >= LEAST_WEIGHT, 0)
    return table.assign(
        rank=range(1, len(table) + 1),
        weight=weight / weight.sum(),
        calibrated=calibrated,
    )[list(COLUMNS)].reset_index(drop=True)


def members(selection: pd.DataFrame) -> dict[str, float]:
    """Models that have a weight in the ensemble, with it, best first."""
    heard = selection[selection["weight"] > 0]
    return dict(zip(heard["model"], heard["weight"].astype(float), strict=True))


def leaned_on(selection: pd.DataFrame, number: int) -> list[str]:
    """The train cases of the `number` best fine-tuned models, best first."""
    models = selection.sort_values("rank")["model"]
    cases = [m.removeprefix(FINETUNED) for m in models if m != BASE]
    return cases[:number]
