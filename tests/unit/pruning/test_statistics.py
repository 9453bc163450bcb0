"""Statistics of one group: hand-computed values, literature, scipy."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from unit.pruning.comparisons import NAN

from casesim.pruning.statistics import (
    bootstrap_interval,
    case_means,
    describe,
    hodges_lehmann,
    holm,
    signed_rank_p,
)

# Differences between cross- and self-fertilised maize (Darwin), in eighths of an inch.
MAIZE = np.array([6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75.0])


def test_signed_rank_p_of_a_published_example() -> None:
    """Wilcoxon, Biometrics Bulletin 1:80 (1945): p = 0.041."""
    assert signed_rank_p(MAIZE) == pytest.approx(0.041259765625)


def test_signed_rank_p_does_not_see_rounding_errors() -> None:
    exact = np.array([-1, 2, 2, -2, 3, 4.0])
    noisy = exact + np.array([1, -1, 1, -1, 1, -1]) * 1e-16
    assert signed_rank_p(noisy) == signed_rank_p(exact)


def test_signed_rank_p_without_any_change_is_one() -> None:
    assert signed_rank_p(np.zeros(8)) == 1
    assert math.isnan(signed_rank_p(np.zeros(0)))


def test_hodges_lehmann_by_hand() -> None:
    # Walsh averages of 1, 2, 6: 1, 1.5, 3.5, 2, 4, 6.
    assert hodges_lehmann(np.array([6.0, 1, 2])) == 2.75
    pairs = [(a + b) / 2 for i, a in enumerate(MAIZE) for b in MAIZE[i:]]
    assert hodges_lehmann(MAIZE) == statistics.median(pairs) == 25
    assert math.isnan(hodges_lehmann(np.zeros(0)))


def test_holm_by_hand() -> None:
    # Ordered: 0.01 x 4, 0.02 x 3, 0.03 x 2 (kept at 0.06), 0.5 x 1.
    adjusted = holm([0.02, 0.5, 0.01, NAN, 0.03])
    assert adjusted == pytest.approx([0.06, 0.5, 0.04, NAN, 0.06], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_p_and_bonferroni(p: list[float]) -> None:
    for raw, adjusted in zip(p, holm(p), strict=True):
        assert raw <= adjusted <= 1
        assert adjusted <= max(raw, min(1, len(p) * max(p)))
    assert min(holm(p)) == min(1, len(p) * min(p))


def test_case_means_average_over_defined_seeds() -> None:
    changes = np.array([[0.1, NAN, NAN], [0.3, 0.5, NAN]])
    assert case_means(changes) == pytest.approx([0.2, 0.5])


def test_describe_by_hand() -> None:
    found = describe(np.array([[0.1, -0.2, 0.4, 0.0, NAN]]))
    assert found["n"] == 4
    assert found["n_undefined"] == 1
    assert found["mean"] == pytest.approx(0.075)
    assert found["median"] == pytest.approx(0.05)
    assert found["fraction_improved"] == 0.5


def test_describe_nothing_gives_nothing() -> None:
    found = describe(np.empty((2, 0)))
    assert found.pop("n") == 0
    assert found.pop("n_undefined") == 0
    assert all(math.isnan(value) for value in found.values())


def test_bootstrap_over_cases_agrees_with_scipy() -> None:
    changes = np.random.default_rng(5).gamma(2, 0.02, 30) - 0.02
    ours = bootstrap_interval(changes[None], resamples=20_000)
    scipys = stats.bootstrap(
        (changes,),
        np.mean,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours == pytest.approx(tuple(scipys), abs=5e-4)


def test_bootstrap_over_seeds_and_cases_agrees_with_drawing_them_one_by_one() -> None:
    generator = np.random.default_rng(2)
    changes = 0.02 * generator.standard_normal((3, 1))
    changes = changes + 0.03 * generator.standard_normal((3, 12))
    changes[0, 3] = changes[1, 7] = NAN
    means = []
    for _ in range(6000):
        drawn = changes[generator.integers(3, size=3)][
            :, generator.integers(12, size=12)
        ]
        means.append(case_means(drawn).mean())
    expected = tuple(np.quantile(means, [0.025, 0.975]))
    found = bootstrap_interval(changes, resamples=20_000)
    assert found == pytest.approx(expected, abs=2e-3)


def test_bootstrap_sees_the_noise_between_seeds() -> None:
    by_seed = np.array([[-0.05], [0.0], [0.05]]) + np.zeros((3, 20))
    low, high = bootstrap_interval(by_seed)
    assert low < -0.03
    assert high > 0.03


def test_bootstrap_is_seeded_and_needs_two_cases() -> None:
    changes = np.random.default_rng(0).standard_normal((2, 9))
    first, second = (bootstrap_interval(changes, 500, 3) for _ in range(2))
    assert first == second
    assert first != bootstrap_interval(changes, 500, 4)
    assert np.isnan(bootstrap_interval(changes[:, :1])).all()
