"""UPGMA and bootstrap support against hand-computed values and enumeration."""

import numpy as np
import pytest
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist
from unit.similarity.matrices import simulate, table

from casesim.similarity.distances import distances
from casesim.similarity.tree import (
    cluster_support,
    column_order,
    cophenetic_correlation,
    cut_at,
    cut_distance,
    node_leaves,
    upgma,
)


def test_four_cases_by_hand() -> None:
    """Distances 1, 4, 2 on a line: UPGMA joins 0-1 at 1, 2-3 at 2, both at 5.5."""
    points = np.array([[0.0], [1.0], [5.0], [7.0]])
    tree = upgma(pdist(points))
    expected_tree = np.array([[0, 1, 1, 2], [2, 3, 2, 2], [4, 5, 5.5, 4]])
    np.testing.assert_allclose(tree, expected_tree)
    assert cut_at(tree, 2).tolist() == [1, 1, 2, 2]
    assert cut_distance(tree, 2) == pytest.approx((2 + 5.5) / 2)
    assert cut_distance(tree, 4) == pytest.approx(0.5)
    # Cophenetic heights 1, 5.5 (four times), 2 against distances 1, 5, 7, 4, 6, 2.
    expected = np.corrcoef([1, 5.5, 5.5, 5.5, 5.5, 2], [1, 5, 7, 4, 6, 2])[0, 1]
    found = cophenetic_correlation(tree, pdist(points))
    assert found == pytest.approx(expected)


def test_columns_that_cannot_be_compared_stay_in_their_order() -> None:
    """Of three further columns one has a Dice, as of a label that one case has."""
    nothing = [np.nan] * 3
    matrix = table(
        [
            [1.0, 0.5, 0.4, *nothing],
            [0.5, 1.0, 0.3, *nothing],
            [0.4, 0.3, 1.0, *nothing],
        ],
        columns=["a", "b", "c", "z", "y", "x"],
    )
    matrix.index = ["a", "b", "c"]
    assert column_order(matrix, ["b", "a", "c"]) == [*"baczyx"]
    matrix["y"] = 0.5
    assert column_order(matrix, ["b", "a", "c"]) == [*"baczyx"]


def test_support_is_high_for_real_clusters_and_low_for_noise() -> None:
    matrix = simulate(12, 40, low={0: 0.2, 1: 0.22, 2: 0.21})
    tree = upgma(distances(matrix))
    support = cluster_support(matrix, "euclidean", tree, 100, seed=1)
    nodes = node_leaves(tree)
    assert support[nodes.index(frozenset({0, 1, 2}))] == 1
    assert support[nodes.index(frozenset(range(3, 12)))] == 1
    assert support[-1] == 1
    assert np.median(support) < 0.6
    again = cluster_support(matrix, "euclidean", tree, 100, seed=1)
    np.testing.assert_array_equal(support, again)


def test_support_of_one_column_by_enumeration() -> None:
    """With one column every draw is the same, so every cluster always survives."""
    matrix = table([[0.1], [0.2], [0.7], [0.9]], columns=["x"])
    tree = upgma(distances(matrix))
    support = cluster_support(matrix, "euclidean", tree, 7)
    assert support.tolist() == [1, 1, 1]


def test_support_of_two_columns_against_all_draws() -> None:
    """{0, 1} joins first in draws of column x alone (1 of 4) and not with y in it."""
    matrix = table([[0.0, 0.0], [0.1, 0.9], [0.5, 0.1]], columns=["x", "y"])
    tree = hierarchy.linkage(matrix[["x"]].to_numpy(), "average")
    support = cluster_support(matrix, "euclidean", tree, 4000, seed=0)
    assert support[0] == pytest.approx(0.25, abs=0.03)


def test_support_is_undefined_for_dice() -> None:
    matrix = simulate(5)
    tree = upgma(distances(matrix, "dice"))
    assert np.isnan(cluster_support(matrix, "dice", tree, 3)).all()
