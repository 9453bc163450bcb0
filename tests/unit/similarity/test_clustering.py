"""Distances, tree, cut, worst cluster and case effects against independent values."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import silhouette_score
from sklearn.metrics.pairwise import nan_euclidean_distances

from casesim.errors import UserError
from casesim.similarity import clustering


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


# Distances


def test_euclidean_is_scipys_on_the_whole_rows() -> None:
    matrix = simulate(12, 20)
    condensed = clustering.distances(matrix)
    np.testing.assert_array_equal(condensed, pdist(matrix.to_numpy()))
    result = clustering.cluster(matrix, bootstraps=2)
    np.testing.assert_array_equal(
        result.linkage.to_numpy(float),
        hierarchy.linkage(matrix.to_numpy(), "average"),
    )


@pytest.mark.parametrize("share", [0.05, 0.4])
def test_euclidean_with_nan_is_scikit_learns(share: float) -> None:
    matrix = holes(simulate(10, 15), share)
    expected = squareform(nan_euclidean_distances(matrix.to_numpy()), checks=False)
    np.testing.assert_allclose(clustering.distances(matrix), expected, atol=1e-7)


def test_euclidean_with_nan_by_hand() -> None:
    nan = math.nan
    matrix = table([[0.1, 0.5, nan], [0.4, 0.1, 0.9], [nan, nan, 0.3]])
    expected = [math.sqrt((0.3**2 + 0.4**2) * 3 / 2), nan, math.sqrt(0.6**2 * 3)]
    np.testing.assert_allclose(clustering.distances(matrix), expected)


def test_equal_rows_with_nan_are_at_distance_zero() -> None:
    row = np.random.default_rng(3).random(7)
    row[2] = math.nan
    assert not clustering.distances(table([row, row, row])).any()


def test_correlation_is_scipys_without_nan() -> None:
    matrix = simulate(9, 14)
    np.testing.assert_allclose(
        clustering.distances(matrix, "correlation"),
        pdist(matrix.to_numpy(), "correlation"),
    )


def test_correlation_with_nan_uses_common_columns() -> None:
    matrix = holes(simulate(6, 12), 0.2)
    pairs: Any = itertools.combinations(matrix.to_numpy(), 2)
    expected = []
    for a, b in pairs:
        common = ~np.isnan(a) & ~np.isnan(b)
        expected.append(1 - np.corrcoef(a[common], b[common])[0, 1])
    np.testing.assert_allclose(clustering.distances(matrix, "correlation"), expected)


def test_correlation_of_constant_rows() -> None:
    flat, slope = [0.4, 0.4, 0.4], [0.1, 0.5, 0.6]
    matrix = table([flat, [0.7, 0.7, 0.7], slope])
    np.testing.assert_array_equal(
        clustering.distances(matrix, "correlation"), [0.0, 1.0, 1.0]
    )


def test_correlation_needs_two_common_columns() -> None:
    nan = math.nan
    matrix = table([[0.1, 0.2, nan], [nan, 0.3, 0.5]])
    assert np.isnan(clustering.distances(matrix, "correlation")).all()


def test_dice_is_symmetrised_on_the_square_block() -> None:
    nan = math.nan
    matrix = table(
        [[0.9, 0.2, 0.5, 0.0], [0.4, 0.9, nan, 1.0], [nan, nan, 0.9, 0.3]],
    )
    np.testing.assert_allclose(
        clustering.distances(matrix, "dice"), [1 - 0.3, 1 - 0.5, nan]
    )


def test_dice_needs_the_square_block() -> None:
    matrix = table([[0.9, 0.2], [0.4, 0.9]], rows=["a", "b"], columns=["a", "c"])
    with pytest.raises(UserError, match="no column for b"):
        clustering.distances(matrix, "dice")


def test_undefined_distances_become_the_largest_and_are_counted() -> None:
    nan = math.nan
    matrix = table([[0.1, nan], [nan, 0.5], [0.2, 0.4]])
    condensed = clustering.distances(matrix)
    assert np.isnan(condensed[0])
    filled = clustering.fill_undefined(condensed)
    assert filled[0] == np.nanmax(condensed)
    summary = clustering.cluster(matrix, bootstraps=2).summary
    assert summary["undefined_distances"] == 1
    assert summary["undefined_cells"] == 2


def test_a_region_without_any_dice_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"similarity\.region"):
        clustering.cluster(table(np.full((3, 4), math.nan)))


def test_one_train_case_is_the_users_error() -> None:
    with pytest.raises(UserError, match="at least two train cases"):
        clustering.cluster(table([[0.5, 0.6]]))


def test_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="cosine"):
        clustering.distances(table([[0.5, 0.6], [0.1, 0.2]]), "cosine")


# Tree and cut


def test_four_cases_by_hand() -> None:
    """Distances 1, 4, 2 on a line: UPGMA joins 0-1 at 1, 2-3 at 2, both at 5.5."""
    points = np.array([[0.0], [1.0], [5.0], [7.0]])
    tree = clustering.upgma(pdist(points))
    expected_tree = np.array([[0, 1, 1, 2], [2, 3, 2, 2], [4, 5, 5.5, 4]])
    np.testing.assert_allclose(tree, expected_tree)
    assert clustering.cut_at(tree, 2).tolist() == [1, 1, 2, 2]
    assert clustering.cut_distance(tree, 2) == pytest.approx((2 + 5.5) / 2)
    assert clustering.cut_distance(tree, 4) == pytest.approx(0.5)
    # Cophenetic heights 1, 5.5 (four times), 2 against distances 1, 5, 7, 4, 6, 2.
    expected = np.corrcoef([1, 5.5, 5.5, 5.5, 5.5, 2], [1, 5, 7, 4, 6, 2])[0, 1]
    found = clustering.cophenetic_correlation(tree, pdist(points))
    assert found == pytest.approx(expected)


def test_clusters_are_numbered_in_leaf_order() -> None:
    result = clustering.cluster(simulate(14, low={3: 0.2, 8: 0.25}), bootstraps=2)
    clusters = result.clusters.set_index("case")["cluster"]
    in_leaf_order = clusters.loc[result.leaf_order["case"]].tolist()
    assert in_leaf_order == sorted(in_leaf_order)
    assert in_leaf_order[0] == 1
    cases = result.clusters["case"].to_numpy()
    np.testing.assert_array_equal(
        cases[result.leaf_order["leaf"]], result.leaf_order["case"]
    )


def test_row_order_does_not_change_the_result() -> None:
    matrix = simulate(10, low={2: 0.3, 5: 0.3}).round(1)  # rounded: many ties
    shuffled = matrix.sample(frac=1, random_state=1)
    a = clustering.cluster(matrix, bootstraps=5)
    b = clustering.cluster(shuffled, bootstraps=5)
    pd.testing.assert_frame_equal(a.linkage, b.linkage)
    pd.testing.assert_frame_equal(a.clusters, b.clusters)
    assert a.summary == b.summary


def test_silhouette_is_scikit_learns_and_chooses_the_number() -> None:
    random = np.random.default_rng(1)
    centres = np.repeat([[0.8, 0.2], [0.2, 0.8], [0.3, 0.1]], 5, axis=0)
    matrix = table(centres + random.normal(0, 0.02, (15, 2)), columns=["x", "y"])
    condensed = clustering.distances(matrix)
    tree = clustering.upgma(condensed)
    scores = clustering.silhouettes(tree, condensed)
    assert list(scores) == list(range(2, 11))
    assert max(scores, key=scores.__getitem__) == 3
    for number, score in scores.items():
        labels = hierarchy.fcluster(tree, number, "maxclust")
        expected = silhouette_score(matrix.to_numpy(), labels, metric="euclidean")
        assert score == pytest.approx(expected)
    result = clustering.cluster(matrix, max_removed_share=0.4, bootstraps=2)
    assert result.summary["number"] == 3
    assert result.summary["worst_cases"] == [f"case_{i:02d}" for i in range(10, 15)]


def test_fixed_number_of_clusters() -> None:
    matrix = simulate(12)
    assert clustering.cluster(matrix, number=5, bootstraps=2).summary["number"] == 5
    with pytest.raises(UserError, match=r"clusters\.number is 13"):
        clustering.cluster(matrix, number=13)


# Worst cluster


def test_trial_of_three_planted_cases() -> None:
    """Levels as in a trial of the method: 0.22, 0.40, 0.09 among 0.71-0.78."""
    planted = {1: 0.22, 6: 0.40, 11: 0.09}
    result = clustering.cluster(simulate(16, low=planted), bootstraps=20)
    assert result.summary["number"] == 2
    assert result.summary["worst_cases"] == ["case_01", "case_06", "case_11"]
    worst = result.clusters[result.clusters["worst"]]
    assert worst["cluster"].nunique() == 1
    others = result.clusters[~result.clusters["worst"]]
    assert worst["row_mean"].max() < 0.5 < others["row_mean"].min()


def test_worst_cluster_leaves_the_diagonal_out() -> None:
    """Rows 0 and 1 are the worst donors, and the best on their own cases.

    Off the diagonal the pairs have means 0.50 and 0.52; with it, 0.75 and 0.61.
    """
    far, own = 0.5, 1.0
    matrix = table(
        [
            [own, own, 0.0, far],
            [own, own, 0.0, far],
            [0.6, 0.4, 0.7, 0.56],
            [0.6, 0.4, 0.56, 0.7],
        ]
    )
    with_diagonal = matrix.mean(axis=1)
    assert with_diagonal[:2].min() > with_diagonal[2:].max()
    result = clustering.cluster(matrix, number=2, max_removed_share=0.5, bootstraps=2)
    assert result.clusters["row_mean"].tolist() == pytest.approx(
        [0.5, 0.5, 1.56 / 3, 1.56 / 3]
    )
    assert result.summary["worst_cases"] == ["case_00", "case_01"]
    assert result.clusters["row_max"].tolist() == pytest.approx([1.0, 1.0, 0.6, 0.6])


def test_row_statistics_leave_out_nan_and_only_the_own_column() -> None:
    matrix = table(
        [[0.9, 0.2, math.nan, 0.4]], rows=["b"], columns=["b", "a", "c", "d"]
    )
    statistics = clustering.row_statistics(matrix)
    assert statistics.to_numpy()[0].tolist() == pytest.approx([0.3, 0.4])


def test_the_size_rule_by_hand() -> None:
    means = np.array([0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.3, 0.3, 0.1])

    def worst(
        sizes: list[int],
        min_size: int = 2,
        share: float = 0.3,
        means: clustering.FloatArray = means,
    ) -> tuple[int | None, str]:
        labels = np.repeat(np.arange(1, len(sizes) + 1), sizes)
        return clustering.worst_cluster(labels, means, min_size, share)

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
    assert clustering.most_removable(10, 0.3) == 3
    assert clustering.most_removable(100, 0.29) == 29
    assert clustering.most_removable(2, 0.3) == 1


def test_a_lone_outlier_does_not_make_a_sound_cluster_the_worst() -> None:
    result = clustering.cluster(simulate(12, low={4: 0.1}), bootstraps=2)
    assert result.summary["worst_cases"] == ["case_04"]
    assert "fewer cases than clusters.min_size 2" in result.summary["statement"]


def test_a_bad_half_is_cut_until_it_may_be_removed() -> None:
    low = dict.fromkeys(range(6), 0.3)
    result = clustering.cluster(simulate(12, low=low), bootstraps=2)
    worst = result.summary["worst_cases"]
    assert 1 <= len(worst) <= 3
    assert set(worst) <= {f"case_{row:02d}" for row in low}


def test_a_fixed_number_never_removes_more_than_the_share() -> None:
    low = dict.fromkeys(range(6), 0.3)
    result = clustering.cluster(simulate(12, low=low), number=2, bootstraps=2)
    assert result.summary["worst_cluster"] is None
    assert not result.clusters["worst"].any()
    assert "max_removed_share" in result.summary["statement"]


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
    condensed = clustering.distances(matrix)
    means = clustering.row_statistics(matrix)["row_mean"].to_numpy()
    tree = clustering.upgma(condensed)
    chosen = clustering.cut(tree, condensed, means, "auto", min_size, share)
    members = chosen.labels == chosen.worst
    assert 1 <= members.sum() <= max(1, share * n + 1e-9)
    assert means[members].mean() < means[~members].mean()


@pytest.mark.parametrize("metric", clustering.METRICS)
def test_equal_rows_hand_out_nothing(metric: str) -> None:
    matrix = table(np.full((6, 6), 0.5))
    if metric == "dice":
        matrix = matrix.where(~np.eye(6, dtype=bool), 0.5) + 0.5  # Dice 1: distance 0
    result = clustering.cluster(matrix, metric, bootstraps=2)
    assert result.summary["worst_cluster"] is None
    assert result.summary["number"] == 1
    assert "do not differ" in result.summary["statement"]
    assert result.summary["cophenetic_correlation"] is None


@pytest.mark.parametrize("n", [2, 3])
def test_two_and_three_cases(n: int) -> None:
    result = clustering.cluster(simulate(n, low={1: 0.2}), bootstraps=2)
    assert result.summary["worst_cases"] == ["case_01"]
    assert len(result.linkage) == n - 1


@pytest.mark.parametrize("metric", clustering.METRICS)
def test_summary_is_json_without_nan(metric: str) -> None:
    result = clustering.cluster(holes(simulate(6, 8), 0.1), metric, bootstraps=3)
    json.dumps(result.summary, allow_nan=False)
    assert len(result.summary["support"]) == 5


# Support


def test_support_is_high_for_real_clusters_and_low_for_noise() -> None:
    matrix = simulate(12, 40, low={0: 0.2, 1: 0.22, 2: 0.21})
    tree = clustering.upgma(clustering.distances(matrix))
    support = clustering.cluster_support(matrix, "euclidean", tree, 100, seed=1)
    nodes = clustering.node_leaves(tree)
    assert support[nodes.index(frozenset({0, 1, 2}))] == 1
    assert support[nodes.index(frozenset(range(3, 12)))] == 1
    assert support[-1] == 1
    assert np.median(support) < 0.6
    again = clustering.cluster_support(matrix, "euclidean", tree, 100, seed=1)
    np.testing.assert_array_equal(support, again)


def test_support_of_one_column_by_enumeration() -> None:
    """With one column every draw is the same, so every cluster always survives."""
    matrix = table([[0.1], [0.2], [0.7], [0.9]], columns=["x"])
    tree = clustering.upgma(clustering.distances(matrix))
    support = clustering.cluster_support(matrix, "euclidean", tree, 7)
    assert support.tolist() == [1, 1, 1]


def test_support_of_two_columns_against_all_draws() -> None:
    """{0, 1} joins first in draws of column x alone (1 of 4) and not with y in it."""
    matrix = table([[0.0, 0.0], [0.1, 0.9], [0.5, 0.1]], columns=["x", "y"])
    tree = hierarchy.linkage(matrix[["x"]].to_numpy(), "average")
    support = clustering.cluster_support(matrix, "euclidean", tree, 4000, seed=0)
    assert support[0] == pytest.approx(0.25, abs=0.03)


def test_support_is_undefined_for_dice() -> None:
    matrix = simulate(5)
    tree = clustering.upgma(clustering.distances(matrix, "dice"))
    assert np.isnan(clustering.cluster_support(matrix, "dice", tree, 3)).all()


# Case effects


def test_median_polish_of_an_additive_table_is_exact() -> None:
    row, column = np.array([-0.3, 0.0, 0.1]), np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    values = 0.6 + row[:, None] + column[None, :]
    values[0, 3] = math.nan
    overall, rows, columns, residual = clustering.median_polish(values)
    assert overall == pytest.approx(0.6)
    np.testing.assert_allclose(rows, row, atol=1e-12)
    np.testing.assert_allclose(columns, column, atol=1e-12)
    np.testing.assert_allclose(residual[~np.isnan(residual)], 0, atol=1e-12)


def test_median_polish_by_hand() -> None:
    """Row medians 2, 5, 8 leave columns -1, 0, 1 and one outlier as residual."""
    values = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 99]])
    overall, rows, columns, residual = clustering.median_polish(values)
    assert overall == 5
    assert rows.tolist() == [-3, 0, 3]
    assert columns.tolist() == [-1, 0, 1]
    assert residual.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 90]]


def test_robust_z() -> None:
    values = np.array([1.0, 2, 3, 4, 100])
    np.testing.assert_allclose(
        clustering.robust_z(values), (values - 3) / 1.4826, rtol=1e-12
    )
    mostly_equal = np.array([0.0, 0, 0, 0, 5])
    np.testing.assert_allclose(clustering.robust_z(mostly_equal)[-1], 5 / 1.2533)
    assert clustering.robust_z(np.full(4, 0.3)).tolist() == [0, 0, 0, 0]


def planted_effects(
    donor: float, recipient: float, n: int = 14, spread: float = 0.01
) -> pd.DataFrame:
    random = np.random.default_rng(5)
    rows, columns = random.normal(0, spread, n), random.normal(0, 0.02, n)
    rows[3] += donor
    columns[3] += recipient
    values = 0.7 + rows[:, None] + columns[None, :] + random.normal(0, spread, (n, n))
    values[range(n), range(n)] = 0.95
    return clustering.case_effects(table(values)).set_index("case")


@pytest.mark.parametrize(
    ("donor", "recipient", "word"),
    [
        (-0.4, 0.0, clustering.WRONG_LABEL),
        (-0.3, -0.4, clustering.BAD_IMAGE),
        (0.0, -0.4, clustering.RARE),
        (0.0, 0.0, clustering.FINE),
    ],
)
def test_case_effects_tell_the_kinds_apart(
    donor: float, recipient: float, word: str
) -> None:
    effects = planted_effects(donor, recipient)
    assert effects.loc["case_03", "word"] == word
    assert (effects.drop("case_03")["word"] == clustering.FINE).all()
    if donor:
        assert effects.loc["case_03", "rank"] == 1
        assert effects.loc["case_03", "donor_effect"] == pytest.approx(donor, abs=0.05)


def test_a_small_effect_is_never_called_low() -> None:
    """In a very even cohort 0.02 Dice is many robust z, and still nothing to act on."""
    effects = planted_effects(-0.04, 0.0, spread=0.003)
    assert effects["donor_z"].min() < -3
    assert effects.loc["case_03", "word"] == clustering.FINE


def test_case_effects_ignore_the_diagonal_and_rank_from_the_lowest() -> None:
    matrix = simulate(8, 11, low={5: 0.3})
    effects = clustering.case_effects(matrix)
    changed = matrix.copy()
    for case in matrix.index:
        changed.loc[case, case] = 0.0
    pd.testing.assert_frame_equal(effects, clustering.case_effects(changed))
    assert effects["rank"].tolist() == list(range(1, 9))
    assert effects["donor_effect"].is_monotonic_increasing


# Tables


def test_tables_survive_writing_and_reading(tmp_path: Path) -> None:
    matrix = table(
        [[0.9, 0.1], [math.nan, 0.8]], rows=["001", "NA"], columns=["001", "NA"]
    )
    matrix.to_csv(tmp_path / "matrix.tsv", sep="\t", index_label="model \\ case")
    pd.testing.assert_frame_equal(
        clustering.read_matrix(tmp_path / "matrix.tsv"), matrix
    )
    big = clustering.cluster(simulate(7), bootstraps=2)
    big.linkage.to_csv(tmp_path / "linkage.tsv", sep="\t", index=False)
    np.testing.assert_array_equal(
        clustering.read_linkage(tmp_path / "linkage.tsv"), big.linkage.to_numpy(float)
    )
    clusters = big.clusters.assign(case=["001", "NA", "c", "d", "e", "f", "g"])
    clusters.to_csv(tmp_path / "clusters.tsv", sep="\t", index=False)
    pd.testing.assert_frame_equal(
        clustering.read_clusters(tmp_path / "clusters.tsv"), clusters
    )


def test_a_matrix_with_words_is_the_users_error(tmp_path: Path) -> None:
    path = tmp_path / "matrix.tsv"
    path.write_text("case\ta\nb\tgood\n")
    with pytest.raises(UserError, match=r"matrix\.tsv"):
        clustering.read_matrix(path)
