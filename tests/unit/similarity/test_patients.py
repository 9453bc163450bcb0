"""A model is not judged by other scans of its train case's patient."""

import math

import numpy as np
import pandas as pd
import pytest
from unit.similarity.matrices import simulate, table
from unit.similarity.simulated_errors import SOUND, Defect, simulate_errors

from casesim.similarity.clustering import cluster
from casesim.similarity.effects import case_effects
from casesim.similarity.matrix import (
    own_cells,
    row_statistics,
    without_own_patient,
)
from casesim.similarity.signatures import signatures
from casesim.similarity.stability import stability

# Cases 2 and 5 are scans of one patient, as are 0 and 7.
PAIRS = {2: 5, 0: 7}


def patients(name: str) -> dict[str, str]:
    """By the id of the first case, as the cohort tells it."""
    return {
        name.format(case): name.format(first)
        for first, second in PAIRS.items()
        for case in (first, second)
    }


def test_by_hand() -> None:
    names = ["a_1", "a_2", "b"]
    matrix = table([[0.9, 0.8, 0.5], [0.7, 0.9, 0.3], [0.2, 0.4, 0.9]], names, names)
    scans = {"a_1": "a_1", "a_2": "a_1"}
    np.testing.assert_array_equal(
        own_cells(names, [*names, "a"], scans),
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]],
    )
    found = row_statistics(matrix, scans)
    assert found["row_mean"].tolist() == pytest.approx([0.5, 0.3, 0.3])
    assert found["row_max"].tolist() == [0.5, 0.3, 0.4]
    alone = row_statistics(matrix)
    assert alone["row_mean"].tolist() == pytest.approx([0.65, 0.5, 0.3])
    pd.testing.assert_frame_equal(alone, row_statistics(matrix, {}))


def test_a_patient_of_whom_all_cases_are_has_no_row_mean() -> None:
    names = ["a", "b"]
    found = row_statistics(
        table([[1, 0.5], [0.4, 1]], names, names), {"a": "a", "b": "a"}
    )
    assert all(map(math.isnan, found["row_mean"]))


def test_no_other_scan_of_the_patient_moves_a_row() -> None:
    """What the tree is made of stays the whole row, as in the paper."""
    matrix = simulate(10, 12, low={5: 0.3, 2: 0.3})
    scans = patients("case_{:02d}")
    changed = matrix.copy()
    for first, second in PAIRS.items():
        changed.iloc[[first, second], [second, first]] = 0.99
    pd.testing.assert_frame_equal(
        without_own_patient(changed, scans), without_own_patient(matrix, scans)
    )
    pd.testing.assert_frame_equal(
        case_effects(changed, scans), case_effects(matrix, scans)
    )
    columns = ["case", "row_mean", "row_max"]
    found, expected = (
        cluster(m, bootstraps=2, patients=scans).clusters[columns]
        for m in (changed, matrix)
    )
    pd.testing.assert_frame_equal(found, expected)
    assert not found.equals(cluster(changed, bootstraps=2).clusters[columns])
    clusters = cluster(matrix, bootstraps=2).clusters
    refits = changed.iloc[[2, 5]]
    found, expected = (
        stability(m, clusters, refits, resamples=3, patients=scans)
        .table.set_index("case")[["row_mean", "refit_row_mean"]]
        .sort_index()
        for m in (changed, matrix)
    )
    pd.testing.assert_frame_equal(found, expected)


def test_a_resample_leaves_the_patient_out() -> None:
    """Rows that only their own patient's scan makes good are worst in each resample."""
    matrix = simulate(8, low={2: 0.3, 5: 0.3})
    matrix.iloc[[2, 5], [5, 2]] = 1.0
    clusters = cluster(matrix, bootstraps=2).clusters
    alone, known = (
        stability(matrix, clusters, patients=scans, resamples=40, number=2)
        .table.set_index("case")[["row_mean", "worst_share"]]
        .loc["case_02"]
        .to_numpy(float)
        for scans in (None, patients("case_{:02d}"))
    )
    assert alone[0] > known[0] + 0.08
    assert known[1] >= alone[1]


def test_signatures_of_rows_and_columns_leave_the_patient_out() -> None:
    errors, base = simulate_errors([SOUND] * 8 + [Defect(grown=0.5)])
    scans = patients("case_{:03d}")
    before = signatures(errors, base, {}, patients=scans).table
    for first, second in PAIRS.items():
        errors.confusion[[first, second], [second, first]] = 7.0
    pd.testing.assert_frame_equal(
        signatures(errors, base, {}, patients=scans).table, before
    )
    assert not signatures(errors, base, {}).table.equals(before)
