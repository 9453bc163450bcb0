"""Intervals of a prediction from its errors on calibration cases.

Split conformal prediction (Vovk et al., 2005) with errors made out of fold. Cells of
one case are alike, and so are cases of one patient: it is patients that are taken as
exchangeable, not cells.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.floating]


def quantile(scores: pd.Series, patients: pd.Series, level: float) -> float:
    """The error that a cell of a new patient stays below with probability `level`.

    Each of the n calibration patients weighs 1 / (n + 1), shared by their cells; the
    rest belongs to the new one, at infinity (*pooling CDFs* of Dunn, Wasserman and
    Ramdas, J. Am. Stat. Assoc. 118:2491, 2023). With one cell a patient it is split
    conformal's ceil((n + 1) level)-th smallest score.

    Args:
        scores: errors of cells, at least 0; NaN are left out.
        patients: of the same cells.
        level: between 0 and 1.

    Returns:
        Infinity where the patients are too few for the level.
    """
    known = scores.notna()
    scores, patients = scores[known], patients[known]
    n = patients.nunique()
    cells = patients.map(patients.value_counts()).to_numpy(dtype=float)
    weights = 1 / ((n + 1) * cells)
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
