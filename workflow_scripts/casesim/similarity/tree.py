"""The tree of the train cases (UPGMA), its file, and the support of its merges."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.cluster.hierarchy import cophenet, fcluster, leaves_list, linkage

from casesim.similarity.distances import distances, fill_undefined, profile_distances
from casesim.similarity.matrix import read_text

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def upgma(condensed: FloatArray) -> FloatArray:
    """Tree by UPGMA (Sokal & Michener 1958; scipy's `linkage(..., 'average')`).

    Ties are broken by the order of the rows, so rows sorted by case id give one tree
    whatever order files came in.

    Returns:
        (cases - 1, 4) linkage: left, right, distance, size.
    """
    return linkage(fill_undefined(condensed), "average")


def leaf_order(tree: FloatArray) -> IntArray:
    """Rows in the order of the leaves."""
    return leaves_list(tree).astype(np.int64)


def column_order(matrix: pd.DataFrame, rows_in_leaf_order: Sequence[str]) -> list[str]:
    """Train cases in leaf order, then the other cases by UPGMA of their columns.

    Where rows and columns are the same cases, the diagonal so joins the corners.
    Columns of which no two can be compared stay in their order.
    """
    own = [case for case in rows_in_leaf_order if case in matrix.columns]
    others = [case for case in matrix.columns if case not in set(own)]
    if len(others) > 2:
        condensed = distances(matrix[others].T)
        if not np.isnan(condensed).all():
            others = [others[leaf] for leaf in leaf_order(upgma(condensed))]
    return own + others


def cut_at(tree: FloatArray, number: int, order: IntArray | None = None) -> IntArray:
    """Cluster of each row when the tree is cut into `number` clusters.

    Clusters are numbered from 1 in leaf order, which a caller who has it may give.
    Where merges tie there may be fewer.
    """
    labels = fcluster(tree, number, "maxclust")
    names = pd.unique(labels[leaf_order(tree) if order is None else order])
    number_of = np.zeros(labels.max() + 1, dtype=np.int64)
    number_of[names] = np.arange(1, len(names) + 1)
    return number_of[labels]


def cut_distance(tree: FloatArray, number: int) -> float:
    """Height halfway between the last merge below and the first above the cut."""
    heights = np.concatenate([[0.0], tree[:, 2], [tree[-1, 2] * 1.1]])
    merged = len(tree) + 1 - number
    return float((heights[merged] + heights[merged + 1]) / 2)


def linkage_table(tree: FloatArray) -> pd.DataFrame:
    """The linkage as `left, right, distance, size`."""
    table = pd.DataFrame(tree, columns=["left", "right", "distance", "size"])
    return table.astype({"left": int, "right": int, "size": int})


def read_linkage(path: Path | str) -> FloatArray:
    """The linkage that `linkage_table` wrote, as scipy takes it."""
    table = read_text(path)
    return table[["left", "right", "distance", "size"]].astype(float).to_numpy()


def cophenetic_correlation(tree: FloatArray, condensed: FloatArray) -> float:
    """How well heights in the tree reproduce the distances; NaN if all are equal."""
    filled = fill_undefined(condensed)
    if np.ptp(filled) == 0:
        return math.nan
    return float(cophenet(tree, filled)[0])


def node_leaves(tree: FloatArray) -> list[frozenset[int]]:
    """The leaves under each merge, in the order of the linkage."""
    sets = [frozenset([leaf]) for leaf in range(len(tree) + 1)]
    for left, right in tree[:, :2].astype(int):
        sets.append(sets[left] | sets[right])
    return sets[len(tree) + 1 :]


def cluster_support(
    matrix: pd.DataFrame,
    metric: str,
    tree: FloatArray,
    bootstraps: int = 1000,
    seed: int = 0,
) -> FloatArray:
    """Share of column-bootstrap trees in which each cluster of the tree survives.

    Felsenstein's bootstrap (Evolution 39:783, 1985) on the recipients: columns are
    drawn with replacement, the tree is built again, and a merge survives when some
    merge of the new tree joins exactly the same cases.

    Args:
        matrix: the matrix that `tree` was built from, rows in the same order.
        metric: with `dice`, which compares case with case and has no columns to draw,
            support is undefined: all NaN.

    Returns:
        (cases - 1,) in the order of the linkage; the last, the root, is 1.
    """
    if metric == "dice":
        return np.full(len(tree), np.nan)
    rows = matrix.to_numpy(float)
    nodes = node_leaves(tree)
    random = np.random.default_rng(seed)
    survived = np.zeros(len(nodes))
    for _ in range(bootstraps):
        drawn = rows[:, random.integers(rows.shape[1], size=rows.shape[1])]
        condensed = profile_distances(drawn, metric)
        if np.isnan(condensed).all():
            continue
        found = set(node_leaves(upgma(condensed)))
        survived += [node in found for node in nodes]
    return survived / bootstraps
