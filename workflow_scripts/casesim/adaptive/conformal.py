"""Intervals of a prediction from its errors on calibration cases.

Split conformal prediction (Vovk et al., 2005) with errors made out of fold. Cells of
one case are alike, so it is the cases that are taken as exchangeable, not the cells.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.floating]


def quantile(scores: pd.Series, cases: pd.Series, level: float) -> float:
    """The error that a cell of a new case stays below with probability `level`.

    Each of the n calibration cases weighs 1 / (n + 1), shared by its cells; the rest
    belongs to the new case, at infinity (*pooling CDFs* of Dunn, Wasserman and Ramdas,
    J. Am. Stat. Assoc. 118:2491, 2023). With one cell a case it is split conformal's
    ceil((n + 1) level)-th smallest score.

    Args:
        scores: errors of cells, at least 0; NaN are left out.
        cases: of the same cells.
        level: between 0 and 1.

    Returns:
        Infinity where the cases are too few for the level.
    """
    known = scores.notna()
    scores, cases = scores[known], cases[known]
    n = cases.nunique()
    weights = 1 / ((n + 1) * cases.map(cases.value_counts()).to_numpy(dtype=float))
    order = np.argsort(scores.to_numpy(), kind="stable")
    reached = np.cumsum(weights[order])
    # Sums of fractions miss the level by rounding errors.
    beyond = np.flatnonzero(reached >= level - 1e-9)
    return float(scores.to_numpy()[order][beyond[0]]) if beyond.size else math.inf


def interval(
    predicted: Array, scale: Array, quantile: float | Array
) -> tuple[Array, Array]:
    """Limits predicted ± quantile * scale, within what a Dice can be."""
    half = quantile * scale
    return np.clip(predicted - half, 0, 1), np.clip(predicted + half, 0, 1)
