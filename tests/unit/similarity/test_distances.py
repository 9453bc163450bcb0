"""Distances between rows against hand-computed values, scipy and scikit-learn."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics.pairwise import nan_euclidean_distances
from unit.similarity.matrices import holes, simulate, table

from casesim.errors import UserError
from casesim.similarity.distances import distances


@pytest.mark.parametrize("share", [0.05, 0.4])
def test_euclidean_with_nan_is_scikit_learns(share: float) -> None:
    matrix = holes(simulate(10, 15), share)
    expected = squareform(nan_euclidean_distances(matrix.to_numpy()), checks=False)
    np.testing.assert_allclose(distances(matrix), expected, atol=1e-7)


def test_euclidean_with_nan_by_hand() -> None:
    nan = math.nan
    matrix = table([[0.1, 0.5, nan], [0.4, 0.1, 0.9], [nan, nan, 0.3]])
    expected = [math.sqrt((0.3**2 + 0.4**2) * 3 / 2), nan, math.sqrt(0.6**2 * 3)]
    np.testing.assert_allclose(distances(matrix), expected)


def test_equal_rows_with_nan_are_at_distance_zero() -> None:
    row = np.random.default_rng(3).random(7)
    row[2] = math.nan
    assert not distances(table([row, row, row])).any()


def test_correlation_is_scipys_without_nan() -> None:
    matrix = simulate(9, 14)
    np.testing.assert_allclose(
        distances(matrix, "correlation"),
        pdist(matrix.to_numpy(), "correlation"),
    )


def test_correlation_with_nan_uses_common_columns() -> None:
    matrix = holes(simulate(6, 12), 0.2)
    pairs: Any = itertools.combinations(matrix.to_numpy(), 2)
    expected = []
    for a, b in pairs:
        common = ~np.isnan(a) & ~np.isnan(b)
        expected.append(1 - np.corrcoef(a[common], b[common])[0, 1])
    np.testing.assert_allclose(distances(matrix, "correlation"), expected)


def test_correlation_of_constant_rows() -> None:
    flat, slope = [0.4, 0.4, 0.4], [0.1, 0.5, 0.6]
    matrix = table([flat, [0.7, 0.7, 0.7], slope])
    np.testing.assert_array_equal(distances(matrix, "correlation"), [0.0, 1.0, 1.0])


def test_correlation_needs_two_common_columns() -> None:
    nan = math.nan
    matrix = table([[0.1, 0.2, nan], [nan, 0.3, 0.5]])
    assert np.isnan(distances(matrix, "correlation")).all()


def test_dice_is_symmetrised_on_the_square_block() -> None:
    nan = math.nan
    matrix = table(
        [[0.9, 0.2, 0.5, 0.0], [0.4, 0.9, nan, 1.0], [nan, nan, 0.9, 0.3]],
    )
    np.testing.assert_allclose(distances(matrix, "dice"), [1 - 0.3, 1 - 0.5, nan])


def test_dice_needs_the_square_block() -> None:
    matrix = table([[0.9, 0.2], [0.4, 0.9]], rows=["a", "b"], columns=["a", "c"])
    with pytest.raises(UserError, match="no column for b"):
        distances(matrix, "dice")


def test_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="cosine"):
        distances(table([[0.5, 0.6], [0.1, 0.2]]), "cosine")
