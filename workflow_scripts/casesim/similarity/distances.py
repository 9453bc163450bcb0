"""Distances between train cases, by the rows of their models in the matrix."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial.distance import pdist

from casesim.errors import UserError

FloatArray = npt.NDArray[np.float64]

METRICS = ("euclidean", "correlation", "dice")


def distances(matrix: pd.DataFrame, metric: str = "euclidean") -> FloatArray:
    """Distances between train cases.

    `euclidean`: between whole rows, diagonal included, as `scipy`'s `pdist` and as
        seaborn's `clustermap` does by default. With NaN: over the columns defined in
        both rows, scaled by sqrt(columns / common columns), as scikit-learn's
        `nan_euclidean_distances`.
    `correlation`: 1 - Pearson correlation over the columns defined in both rows. A
        constant row correlates with nothing (distance 1), and two constant rows have
        the same pattern (distance 0).
    `dice`: 1 - (S_ij + S_ji) / 2 on the square block of train cases; where only one of
        the two directions is defined, that one alone.

    Args:
        matrix: (train cases, pool cases), Dice.
        metric: one of `METRICS`.

    Returns:
        Condensed distances as from `pdist`, in row order; NaN where undefined (rows
        without a common column, for `correlation` without two).

    Raises:
        UserError: fewer than two rows, or no square block for `dice`.
    """
    if len(matrix) < 2:
        raise UserError(
            "Clustering needs at least two train cases. Raise cohort.train_cases."
        )
    if metric == "dice":
        return _dice_distances(matrix)
    return profile_distances(matrix.to_numpy(float), metric)


def profile_distances(rows: FloatArray, metric: str) -> FloatArray:
    """Condensed distances between rows, by a metric that needs no square block.

    Args:
        rows: (train cases, columns), NaN where undefined.
        metric: `euclidean` or `correlation`, as in `distances`.

    Raises:
        ValueError: another metric.
    """
    if metric == "euclidean":
        return (
            _nan_euclidean(rows) if np.isnan(rows).any() else pdist(rows, "euclidean")
        )
    if metric == "correlation":
        return _correlation_distances(rows)
    raise ValueError(f"metric {metric!r} is none of {', '.join(METRICS)}")


def _nan_euclidean(rows: FloatArray) -> FloatArray:
    # From differences, not from dot products as scikit-learn: there equal rows can be
    # 1e-8 apart, which would break ties by rounding.
    columns = rows.shape[1]
    parts = []
    for i in range(len(rows) - 1):
        squares = (rows[i + 1 :] - rows[i]) ** 2
        common = (~np.isnan(squares)).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts.append(np.sqrt(np.nansum(squares, axis=1) * (columns / common)))
    return np.concatenate(parts)


def _correlation_distances(rows: FloatArray) -> FloatArray:
    correlation = pd.DataFrame(rows.T).corr(min_periods=2).to_numpy()
    first, second = np.triu_indices(len(rows), 1)
    condensed = 1 - correlation[first, second]
    for pair in np.flatnonzero(np.isnan(condensed)):
        a, b = rows[first[pair]], rows[second[pair]]
        common = ~np.isnan(a) & ~np.isnan(b)
        if common.sum() >= 2:
            both_constant = np.ptp(a[common]) == 0 and np.ptp(b[common]) == 0
            condensed[pair] = 0.0 if both_constant else 1.0
    return condensed


def _dice_distances(matrix: pd.DataFrame) -> FloatArray:
    missing = sorted(set(matrix.index) - set(matrix.columns))
    if missing:
        raise UserError(
            "similarity.distance: dice compares train cases with each other, but the "
            f"matrix has no column for {', '.join(missing)}. "
            "Use euclidean or correlation, or evaluate every train case."
        )
    square = matrix.loc[:, matrix.index].to_numpy(float)
    first, second = np.triu_indices(len(square), 1)
    there, back = square[first, second], square[second, first]
    similarity = np.where(
        np.isnan(there), back, np.where(np.isnan(back), there, (there + back) / 2)
    )
    return 1 - similarity


def fill_undefined(condensed: FloatArray) -> FloatArray:
    """Replace undefined distances by the largest defined one.

    Cases of which nothing common is known are so joined last, never called alike.

    Raises:
        UserError: no distance is defined.
    """
    undefined = np.isnan(condensed)
    if undefined.all():
        raise UserError(
            "No two train cases can be compared: in no column do two rows have a Dice "
            "of what similarity.region names, since it is in no case, or in too few "
            "(results/checks.tsv tells of labels in no case). Choose another "
            "similarity.region, or mean."
        )
    return np.where(undefined, np.nanmax(condensed), condensed)
