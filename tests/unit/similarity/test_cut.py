"""The cut and its size rule, by hand and as properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy
from sklearn.metrics import silhouette_score
from unit.similarity.matrices import table

from casesim.similarity.clustering import cluster
from casesim.similarity.cut import (
    FloatArray,
    cut,
    cuts_of,
    most_removable,
    silhouettes,
    worst_cluster,
)
from casesim.similarity.distances import distances
from casesim.similarity.matrix import row_statistics
from casesim.similarity.tree import upgma


def test_silhouette_is_scikit_learns_and_chooses_the_number() -> None:
    random = np.random.default_rng(1)
    centres = np.repeat([[0.8, 0.2], [0.2, 0.8], [0.3, 0.1]], 5, axis=0)
    matrix = table(centres + random.normal(0, 0.02, (15, 2)), columns=["x", "y"])
    condensed = distances(matrix)
    tree = upgma(condensed)
    scores = silhouettes(cuts_of(tree), condensed)
    assert list(scores) == list(range(2, 11))
    assert max(scores, key=scores.__getitem__) == 3
    for number, score in scores.items():
        labels = hierarchy.fcluster(tree, number, "maxclust")
        expected = silhouette_score(matrix.to_numpy(), labels, metric="euclidean")
        assert score == pytest.approx(expected)
    result = cluster(matrix, max_removed_share=0.4, bootstraps=2)
    assert result.summary["number"] == 3
    assert result.summary["worst_cases"] == [f"case_{i:02d}" for i in range(10, 15)]


def test_the_size_rule_by_hand() -> None:
    means = np.array([0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.3, 0.3, 0.1])

    def worst(
        sizes: list[int],
        min_size: int = 2,
        share: float = 0.3,
        means: FloatArray = means,
    ) -> tuple[int | None, str]:
        labels = np.repeat(np.arange(1, len(sizes) + 1), sizes)
        return worst_cluster(labels, means, min_size, share)

    assert worst([7, 3]) == (2, "allowed")
    assert worst([7, 2, 1]) == (2, "beside smaller")
    assert worst([7, 2, 1], min_size=1) == (3, "allowed")
    assert worst([9, 1]) == (2, "too small")
    assert worst([6, 4]) == (None, "too large")
    # The pair is as sound as the rest: the lone case is handed out, not the pair.
    assert worst([7, 2, 1], means=np.array([0.72] * 7 + [0.7] * 2 + [0.1])) == (
        3,
        "too small",
    )
    # The trio is nearer to the two below it, but above the mean of all the others.
    means = np.array([0.49] + [0.19] * 3 + [0.03] * 2)
    assert worst([1, 3, 2], 3, 0.5, means) == (3, "too small")
    # 0.3 * 10 must be 3 whatever floating point makes of it.
    assert most_removable(10, 0.3) == 3
    assert most_removable(100, 0.29) == 29
    assert most_removable(2, 0.3) == 1


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 14),
    st.integers(0, 10**6),
    st.floats(0.05, 0.6),
    st.integers(1, 3),
)
def test_what_is_handed_out_is_never_too_large_nor_the_best(
    n: int, seed: int, share: float, min_size: int
) -> None:
    random = np.random.default_rng(seed)
    matrix = table(random.random((n, n)) * random.random((n, 1)))
    condensed = distances(matrix)
    means = row_statistics(matrix)["row_mean"].to_numpy()
    tree = upgma(condensed)
    chosen = cut(tree, condensed, means, "auto", min_size, share)
    members = chosen.labels == chosen.worst
    assert 1 <= members.sum() <= max(1, share * n + 1e-9)
    assert means[members].mean() < means[~members].mean()
