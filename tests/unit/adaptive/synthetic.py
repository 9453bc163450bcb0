"""Cells of a pretended cohort, with known reasons for their Dice."""

import numpy as np
import pandas as pd

from casesim.adaptive.table import FEATURES


def cells(
    n_cases: int,
    n_models: int = 6,
    seed: int = 0,
    prefix: str = "case",
    region: str = "a",
) -> pd.DataFrame:
    """All models on all cases, one region: `KEYS`, `FEATURES` and `dice`.

    Dice is that of the case plus that of the model plus what suits the two; the
    confidence follows it, too high by 0.1 and with noise.
    """
    generator = np.random.default_rng(seed)
    models = ["base", *(f"finetuned/t{i}" for i in range(1, n_models))]
    cases = [f"{prefix}{i:03d}" for i in range(n_cases)]
    of_case = generator.normal(0, 0.15, (n_cases, 1))
    # The same models for every seed.
    of_model = np.random.default_rng(99).normal(0, 0.03, (1, n_models))
    both = generator.normal(0, 0.05, (n_cases, n_models))
    dice = np.clip(0.6 + of_case + of_model + both, 0, 1)
    noise = generator.normal(0, 0.03, dice.shape)
    table = pd.DataFrame(
        {
            "model": models * n_cases,
            "case": np.repeat(cases, n_models),
            "region": region,
            **{name: generator.normal(size=dice.size) for name in FEATURES},
        }
    )
    table["volume_ml"] = table["volume_ml"].abs()
    confidence = np.clip(dice + 0.1 + noise, 0, 1).ravel()
    return table.assign(expected_dice=confidence, dice=dice.ravel())


BASE_DICE = {f"t{i}": 0.8 + i / 100 for i in range(1, 10)}
