"""Matrices of known shape, for the tests of this folder."""

from typing import Any

import numpy as np
import pandas as pd


def table(
    values: Any, rows: list[str] | None = None, columns: list[str] | None = None
) -> pd.DataFrame:
    values = np.asarray(values, dtype=float)
    rows = rows or [f"case_{i:02d}" for i in range(values.shape[0])]
    columns = columns or [f"case_{i:02d}" for i in range(values.shape[1])]
    return pd.DataFrame(values, index=rows, columns=columns)


def simulate(
    train: int,
    test: int | None = None,
    low: dict[int, float] | None = None,
    noise: float = 0.02,
    seed: int = 0,
) -> pd.DataFrame:
    """A matrix of sound donors at 0.71-0.78, with `low` = {row: level} below."""
    random = np.random.default_rng(seed)
    test = test or train
    level = random.uniform(0.72, 0.77, train)
    for row, value in (low or {}).items():
        level[row] = value
    ease = random.normal(0, 0.03, test)
    values = level[:, None] + ease[None, :] + random.normal(0, noise, (train, test))
    values[range(train), range(train)] = 0.95
    return table(values.clip(0, 1))


def holes(matrix: pd.DataFrame, share: float, seed: int = 0) -> pd.DataFrame:
    gaps = np.random.default_rng(seed).random(matrix.shape) < share
    return matrix.mask(gaps)
