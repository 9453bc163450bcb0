"""Quantiles of errors: by hand, and what they promise, by simulation."""

import math

import numpy as np
import pandas as pd

from casesim.adaptive import conformal


def test_one_cell_a_case_is_split_conformal() -> None:
    scores = pd.Series([3.0, 1.0, 2.0, 5.0, 4.0, 9.0, 8.0, 7.0, 6.0])
    cases = pd.Series(list("abcdefghi"))
    # ceil((9 + 1) * 0.8) = 8th smallest of nine, ceil(10 * 0.9) = 9th.
    assert conformal.quantile(scores, cases, 0.8) == 8
    assert conformal.quantile(scores, cases, 0.9) == 9
    assert conformal.quantile(scores, cases, 0.91) == math.inf


def test_a_case_counts_once_however_many_cells_it_has() -> None:
    scores = pd.Series([1.0, 1.0, 1.0, 1.0, 7.0, math.nan])
    cases = pd.Series(["a", "a", "a", "a", "b", "b"])
    # Each of the two cases weighs a third.
    assert conformal.quantile(scores, cases, 0.33) == 1
    assert conformal.quantile(scores, cases, 0.34) == 7
    assert conformal.quantile(scores, cases, 0.67) == math.inf


def test_limits_stay_within_what_a_dice_can_be() -> None:
    low, high = conformal.interval(
        np.array([0.5, 0.9, 0.1]), np.array([0.1, 0.1, 0.1]), 2.0
    )
    np.testing.assert_allclose(low, [0.3, 0.7, 0.0])
    np.testing.assert_allclose(high, [0.7, 1.0, 0.3])
    low, high = conformal.interval(np.array([0.5]), np.array([0.1]), math.inf)
    assert (low[0], high[0]) == (0, 1)


def test_coverage_of_cells_that_are_alike_within_a_case() -> None:
    """Cells of a case share most of their error; the promise holds on average."""
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        of_case = generator.normal(size=(21, 1))
        scores = np.abs(of_case + 0.3 * generator.normal(size=(21, 6)))
        cases = pd.Series(np.repeat(range(20), 6))
        limit = conformal.quantile(pd.Series(scores[:20].ravel()), cases, 0.9)
        covered.append((scores[20] <= limit).mean())
    error = np.std(covered) / math.sqrt(len(covered))
    assert 0.9 - 2 * error < np.mean(covered) < 0.97


def test_cells_taken_as_exchangeable_would_promise_too_much() -> None:
    """What grouping by case prevents: ten cases cannot promise 99 %, however many cells
    they have."""
    generator = np.random.default_rng(1)
    covered = []
    for _ in range(500):
        of_case = generator.normal(size=(11, 1))
        scores = np.abs(of_case + 0.1 * generator.normal(size=(11, 20)))
        known = pd.Series(scores[:10].ravel())
        by_case = pd.Series(np.repeat(range(10), 20))
        assert conformal.quantile(known, by_case, 0.99) == math.inf
        by_cell = pd.Series(range(200))
        covered.append((scores[10] <= conformal.quantile(known, by_cell, 0.99)).mean())
    error = np.std(covered) / math.sqrt(len(covered))
    assert np.mean(covered) < 0.99 - 2 * error
