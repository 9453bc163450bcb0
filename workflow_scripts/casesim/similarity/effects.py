"""What each train case does to others (row) and how hard it is itself (column)."""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from casesim.similarity.matrix import row_statistics, without_own_patient

FloatArray = npt.NDArray[np.float64]


def median_polish(
    values: FloatArray, rounds: int = 100, tolerance: float = 1e-9
) -> tuple[float, FloatArray, FloatArray, FloatArray]:
    """Two-way additive fit by Tukey's median polish (1977), NaN left out.

    values = overall + row + column + residual.

    Args:
        values: (rows, columns); every row and column that is wholly NaN gets effect
        NaN.
        rounds: at most so many sweeps of rows and columns.
        tolerance: ends when a sweep changes the sum of absolute residuals by less.

    Returns:
        overall, row effects, column effects (medians 0), residuals.
    """
    residual = np.array(values, dtype=float)
    row = np.zeros(residual.shape[0])
    column = np.zeros(residual.shape[1])
    empty_row = np.isnan(residual).all(axis=1)
    empty_column = np.isnan(residual).all(axis=0)
    before = math.inf
    for _ in range(rounds):
        step = np.zeros_like(row)
        step[~empty_row] = np.nanmedian(residual[~empty_row], axis=1)
        row += step
        residual -= step[:, None]
        step = np.zeros_like(column)
        step[~empty_column] = np.nanmedian(residual[:, ~empty_column], axis=0)
        column += step
        residual -= step[None, :]
        now = float(np.nansum(np.abs(residual)))
        if abs(before - now) <= tolerance:
            break
        before = now
    row[empty_row] = np.nan
    column[empty_column] = np.nan
    row_centre = float(np.nanmedian(row))
    column_centre = float(np.nanmedian(column))
    return (
        row_centre + column_centre,
        row - row_centre,
        column - column_centre,
        residual,
    )


def robust_z(values: FloatArray) -> FloatArray:
    """Distance from the median in units of 1.4826 MAD (Iglewicz & Hoaglin 1993).

    Where more than half of the values are equal the MAD is 0, and 1.2533 times the mean
    absolute deviation stands in; where all are equal, z is 0.
    """
    deviation = values - np.nanmedian(values)
    spread = 1.4826 * float(np.nanmedian(np.abs(deviation)))
    if spread == 0:
        spread = 1.2533 * float(np.nanmean(np.abs(deviation)))
    return deviation / spread if spread > 0 else np.where(np.isnan(values), np.nan, 0.0)


def case_effects(
    matrix: pd.DataFrame, patients: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """What each train case does as donor (row) and as recipient (column).

    Two-way fit by median polish on the matrix without the cells in which a model meets
    its own patient (`matrix.own_cells`, which says what `patients` are). What a low
    row, a low column or both mean is said by `kinds`, which know more of a case than
    Dice.

    Returns:
        Ranked, the lowest donor effect first: `rank, case, donor_effect, donor_z,
        recipient_effect, recipient_z, residual` (median absolute residual of the row:
        how far its pattern departs from row plus column), `row_mean, row_max`.
    """
    matrix = matrix.sort_index()
    others = without_own_patient(matrix, patients)
    _, donor, column, residual = median_polish(others.to_numpy(float))
    column_z = robust_z(column)
    position = {case: i for i, case in enumerate(matrix.columns)}
    own = np.array([position.get(case, -1) for case in matrix.index])
    recipient = np.where(own < 0, np.nan, column[own])
    recipient_z = np.where(own < 0, np.nan, column_z[own])
    donor_z = robust_z(donor)
    table = row_statistics(matrix, patients).rename_axis("case").reset_index()
    table = table.assign(
        donor_effect=donor,
        donor_z=donor_z,
        recipient_effect=recipient,
        recipient_z=recipient_z,
        residual=pd.DataFrame(np.abs(residual)).median(axis=1).to_numpy(),
    )
    table = table.sort_values(["donor_effect", "case"], kind="stable")
    table.insert(0, "rank", range(1, len(table) + 1))
    return table[
        [
            "rank",
            "case",
            "donor_effect",
            "donor_z",
            "recipient_effect",
            "recipient_z",
            "residual",
            "row_mean",
            "row_max",
        ]
    ].reset_index(drop=True)
