"""Median polish, robust z, and the words for cases."""

import math

import numpy as np
import pandas as pd
import pytest
from unit.similarity.matrices import simulate, table

from casesim.similarity.effects import (
    case_effects,
    median_polish,
    robust_z,
)


def test_median_polish_of_an_additive_table_is_exact() -> None:
    row, column = np.array([-0.3, 0.0, 0.1]), np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    values = 0.6 + row[:, None] + column[None, :]
    values[0, 3] = math.nan
    overall, rows, columns, residual = median_polish(values)
    assert overall == pytest.approx(0.6)
    np.testing.assert_allclose(rows, row, atol=1e-12)
    np.testing.assert_allclose(columns, column, atol=1e-12)
    np.testing.assert_allclose(residual[~np.isnan(residual)], 0, atol=1e-12)


def test_median_polish_by_hand() -> None:
    """Row medians 2, 5, 8 leave columns -1, 0, 1 and one outlier as residual."""
    values = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 99]])
    overall, rows, columns, residual = median_polish(values)
    assert overall == 5
    assert rows.tolist() == [-3, 0, 3]
    assert columns.tolist() == [-1, 0, 1]
    assert residual.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 90]]


def test_robust_z() -> None:
    values = np.array([1.0, 2, 3, 4, 100])
    np.testing.assert_allclose(robust_z(values), (values - 3) / 1.4826, rtol=1e-12)
    mostly_equal = np.array([0.0, 0, 0, 0, 5])
    np.testing.assert_allclose(robust_z(mostly_equal)[-1], 5 / 1.2533)
    assert robust_z(np.full(4, 0.3)).tolist() == [0, 0, 0, 0]


def planted_effects(
    donor: float, recipient: float, n: int = 14, spread: float = 0.01
) -> pd.DataFrame:
    random = np.random.default_rng(5)
    rows, columns = random.normal(0, spread, n), random.normal(0, 0.02, n)
    rows[3] += donor
    columns[3] += recipient
    values = 0.7 + rows[:, None] + columns[None, :] + random.normal(0, spread, (n, n))
    values[range(n), range(n)] = 0.95
    return case_effects(table(values)).set_index("case")


@pytest.mark.parametrize(
    ("donor", "recipient"), [(-0.4, 0.0), (-0.3, -0.4), (0.0, -0.4), (0.0, 0.0)]
)
def test_effects_of_rows_and_columns_are_told_apart(
    donor: float, recipient: float
) -> None:
    effects = planted_effects(donor, recipient)
    case = effects.to_dict("index")["case_03"]
    assert (case["donor_z"] <= -2.5) == (donor < 0)
    assert (case["recipient_z"] <= -2.5) == (recipient < 0)
    assert case["recipient_effect"] == pytest.approx(recipient, abs=0.06)
    assert case["donor_effect"] == pytest.approx(donor, abs=0.05)
    if donor:
        assert case["rank"] == 1


def test_case_effects_ignore_the_diagonal_and_rank_from_the_lowest() -> None:
    matrix = simulate(8, 11, low={5: 0.3})
    effects = case_effects(matrix)
    changed = matrix.copy()
    for case in matrix.index:
        changed.loc[case, case] = 0.0
    pd.testing.assert_frame_equal(effects, case_effects(changed))
    assert effects["rank"].tolist() == list(range(1, 9))
    assert effects["donor_effect"].is_monotonic_increasing
