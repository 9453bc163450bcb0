"""From matrix to worst cluster: what is planted is found, and files survive."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist
from unit.similarity.matrices import holes, simulate, table

from casesim.errors import UserError
from casesim.similarity.clustering import cluster, read_clusters
from casesim.similarity.distances import METRICS, distances, fill_undefined
from casesim.similarity.matrix import read_matrix
from casesim.similarity.tree import read_linkage


def test_euclidean_is_scipys_on_the_whole_rows() -> None:
    matrix = simulate(12, 20)
    condensed = distances(matrix)
    np.testing.assert_array_equal(condensed, pdist(matrix.to_numpy()))
    result = cluster(matrix, bootstraps=2)
    np.testing.assert_array_equal(
        result.linkage.to_numpy(float),
        hierarchy.linkage(matrix.to_numpy(), "average"),
    )


def test_undefined_distances_become_the_largest_and_are_counted() -> None:
    nan = math.nan
    matrix = table([[0.1, nan], [nan, 0.5], [0.2, 0.4]])
    condensed = distances(matrix)
    assert np.isnan(condensed[0])
    filled = fill_undefined(condensed)
    assert filled[0] == np.nanmax(condensed)
    summary = cluster(matrix, bootstraps=2).summary
    assert summary["undefined_distances"] == 1
    assert summary["undefined_cells"] == 2


def test_a_region_without_any_dice_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"similarity\.region"):
        cluster(table(np.full((3, 4), math.nan)))


def test_one_train_case_is_the_users_error() -> None:
    with pytest.raises(UserError, match="at least two train cases"):
        cluster(table([[0.5, 0.6]]))


def test_clusters_are_numbered_in_leaf_order() -> None:
    result = cluster(simulate(14, low={3: 0.2, 8: 0.25}), bootstraps=2)
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
    a = cluster(matrix, bootstraps=5)
    b = cluster(shuffled, bootstraps=5)
    pd.testing.assert_frame_equal(a.linkage, b.linkage)
    pd.testing.assert_frame_equal(a.clusters, b.clusters)
    assert a.summary == b.summary


def test_fixed_number_of_clusters() -> None:
    matrix = simulate(12)
    assert cluster(matrix, number=5, bootstraps=2).summary["number"] == 5
    with pytest.raises(UserError, match=r"clusters\.number is 13"):
        cluster(matrix, number=13)


def test_trial_of_three_planted_cases() -> None:
    """Levels as in a trial of the method: 0.22, 0.40, 0.09 among 0.71-0.78."""
    planted = {1: 0.22, 6: 0.40, 11: 0.09}
    result = cluster(simulate(16, low=planted), bootstraps=20)
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
    result = cluster(matrix, number=2, max_removed_share=0.5, bootstraps=2)
    assert result.clusters["row_mean"].tolist() == pytest.approx(
        [0.5, 0.5, 1.56 / 3, 1.56 / 3]
    )
    assert result.summary["worst_cases"] == ["case_00", "case_01"]
    assert result.clusters["row_max"].tolist() == pytest.approx([1.0, 1.0, 0.6, 0.6])


def test_a_lone_outlier_does_not_make_a_sound_cluster_the_worst() -> None:
    result = cluster(simulate(12, low={4: 0.1}), bootstraps=2)
    assert result.summary["worst_cases"] == ["case_04"]
    assert "fewer cases than clusters.min_size 2" in result.summary["statement"]


def test_a_bad_half_is_cut_until_it_may_be_removed() -> None:
    low = dict.fromkeys(range(6), 0.3)
    result = cluster(simulate(12, low=low), bootstraps=2)
    worst = result.summary["worst_cases"]
    assert 1 <= len(worst) <= 3
    assert set(worst) <= {f"case_{row:02d}" for row in low}


def test_a_fixed_number_never_removes_more_than_the_share() -> None:
    low = dict.fromkeys(range(6), 0.3)
    result = cluster(simulate(12, low=low), number=2, bootstraps=2)
    assert result.summary["worst_cluster"] is None
    assert not result.clusters["worst"].any()
    assert "max_removed_share" in result.summary["statement"]


@pytest.mark.parametrize("metric", METRICS)
def test_equal_rows_hand_out_nothing(metric: str) -> None:
    matrix = table(np.full((6, 6), 0.5))
    if metric == "dice":
        matrix = matrix.where(~np.eye(6, dtype=bool), 0.5) + 0.5  # Dice 1: distance 0
    result = cluster(matrix, metric, bootstraps=2)
    assert result.summary["worst_cluster"] is None
    assert result.summary["number"] == 1
    assert "do not differ" in result.summary["statement"]
    assert result.summary["cophenetic_correlation"] is None


def test_a_region_that_no_case_has_is_said() -> None:
    result = cluster(table(np.zeros((5, 5))), bootstraps=2)
    assert result.summary["worst_cluster"] is None
    assert "every Dice is 0 or undefined" in result.summary["statement"]


@pytest.mark.parametrize("n", [2, 3])
def test_two_and_three_cases(n: int) -> None:
    result = cluster(simulate(n, low={1: 0.2}), bootstraps=2)
    assert result.summary["worst_cases"] == ["case_01"]
    assert len(result.linkage) == n - 1


@pytest.mark.parametrize("metric", METRICS)
def test_summary_is_json_without_nan(metric: str) -> None:
    result = cluster(holes(simulate(6, 8), 0.1), metric, bootstraps=3)
    json.dumps(result.summary, allow_nan=False)
    assert len(result.summary["support"]) == 5


def test_tables_survive_writing_and_reading(tmp_path: Path) -> None:
    matrix = table(
        [[0.9, 0.1], [math.nan, 0.8]], rows=["001", "NA"], columns=["001", "NA"]
    )
    matrix.to_csv(tmp_path / "matrix.tsv", sep="\t", index_label="model \\ case")
    pd.testing.assert_frame_equal(read_matrix(tmp_path / "matrix.tsv"), matrix)
    big = cluster(simulate(7), bootstraps=2)
    big.linkage.to_csv(tmp_path / "linkage.tsv", sep="\t", index=False)
    np.testing.assert_array_equal(
        read_linkage(tmp_path / "linkage.tsv"), big.linkage.to_numpy(float)
    )
    clusters = big.clusters.assign(case=["001", "NA", "c", "d", "e", "f", "g"])
    clusters.to_csv(tmp_path / "clusters.tsv", sep="\t", index=False)
    pd.testing.assert_frame_equal(read_clusters(tmp_path / "clusters.tsv"), clusters)
