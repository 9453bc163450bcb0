"""Training noise, random arms and power: scipy, theory, simulations."""

import math

import numpy as np
import pytest
from scipy import stats
from unit.pruning.comparisons import NAN

from casesim.pruning.noise import (
    TrainingNoise,
    against_random,
    change_interval,
    detectable,
    detectable_by_cases,
    training_noise,
)


def test_training_noise_of_one_seed_is_the_spread_of_the_random_arms() -> None:
    means = np.array([[0.5], [0.01], [0.03], [0.02]])
    randoms = np.array([False, True, True, True])
    noise = training_noise(means, randoms)
    assert noise is not None
    assert (noise.df, noise.source) == (2, "random_arms")
    assert noise.sd == pytest.approx(0.01)


def test_training_noise_of_one_seed_without_controls_is_unknown() -> None:
    means = np.array([[0.5], [0.01]])
    assert training_noise(means, np.array([False, True])) is None


def test_training_noise_of_seeds_is_neither_the_effect_nor_the_full_models_noise() -> (
    None
):
    effects = np.array([[0.1], [-0.2], [0.0]])
    of_full = np.array([[0.05, -0.03]])
    no_randoms = np.zeros(3, dtype=bool)
    noise = training_noise(effects - of_full, no_randoms)
    assert noise is not None
    assert (noise.df, noise.source) == (3, "seeds")
    # What is left over is the noise of the full model, against a row of zeros, shared.
    residual = np.array([0.04, -0.04])
    table_residuals = np.vstack([0.75 * residual, *[-0.25 * residual] * 3])
    assert noise.sd == pytest.approx(math.sqrt((table_residuals**2).sum() / 3))


def test_training_noise_of_seeds_is_unbiased() -> None:
    generator = np.random.default_rng(0)
    variances = []
    for _ in range(2000):
        runs = 0.01 * generator.standard_normal((5, 3))
        effects = generator.standard_normal((5, 1))
        noise = training_noise(
            (runs + effects)[1:] - (runs + effects)[:1], np.zeros(4, dtype=bool)
        )
        assert noise is not None
        variances.append(noise.sd**2)
    assert np.mean(variances) == pytest.approx(1e-4, rel=0.04)


def test_interval_without_training_noise_is_students() -> None:
    changes = np.random.default_rng(3).normal(0.02, 0.03, 15)
    found = change_interval(
        changes.mean(), changes.std(ddof=1), 15, TrainingNoise(0.0, 4, "seeds"), 2
    )
    expected = stats.ttest_1samp(changes, 0).confidence_interval(0.95)
    assert found == pytest.approx(tuple(expected))


def test_interval_without_differences_between_cases_is_that_of_the_seeds() -> None:
    low, high = change_interval(0.1, 0.0, 15, TrainingNoise(0.01, 4, "seeds"), 3)
    half = stats.t.ppf(0.975, 4) * math.sqrt(2 * 0.01**2 / 3)
    assert (low, high) == pytest.approx((0.1 - half, 0.1 + half))


def test_interval_of_two_terms_agrees_with_welch() -> None:
    """Equal to Welch's interval where the two variances are those of two samples."""
    generator = np.random.default_rng(4)
    first, second = generator.normal(0, 1, 8), generator.normal(0, 3, 13)
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    noise = TrainingNoise(first.std(ddof=1) / math.sqrt(2), 7, "seeds")
    found = change_interval(
        first.mean() - second.mean(), second.std(ddof=1), 13, noise, 8
    )
    assert found == pytest.approx(tuple(expected))


def test_random_p_counts_arms_that_are_at_least_as_good() -> None:
    randoms = np.array([0.0, 0.01, 0.03, 0.02])
    found = against_random(0.02, randoms)
    assert (found.p, found.floor) == (3 / 5, 1 / 5)
    assert against_random(0.05, randoms).p == found.floor


def test_with_nineteen_random_arms_the_permutation_decides() -> None:
    randoms = np.linspace(-0.01, 0.01, 19)
    best = against_random(0.0101, randoms)
    second = against_random(0.0099, randoms)
    assert (best.p, best.better) == (0.05, True)
    assert (second.p, second.better) == (0.1, False)


def test_with_fewer_random_arms_their_spread_decides() -> None:
    # Mean 0, sd 0.01, error 0.01 x sqrt(4/3); one-sided t of 2 df at 5 %: 2.92.
    randoms = np.array([-0.01, 0.0, 0.01])
    limit = 2.91999 * 0.01 * math.sqrt(4 / 3)
    assert against_random(limit + 1e-4, randoms).better
    assert not against_random(limit - 1e-4, randoms).better
    assert not against_random(1.0, randoms[:1]).better


@pytest.mark.parametrize(
    ("n", "sd", "expected"),
    [
        (20, 0.03, 0.019),
        (20, 0.05, 0.031),
        (50, 0.03, 0.012),
        (50, 0.05, 0.020),
        (100, 0.03, 0.008),
        (100, 0.05, 0.014),
        (384, 0.03, 0.004),
        (384, 0.05, 0.007),
    ],
)
def test_detectable_by_cases_agrees_with_the_normal_approximation(
    n: int, sd: float, expected: float
) -> None:
    """(1.960 + 0.842) x sd / sqrt(n), to which t adds its tails at small n."""
    normal = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * sd / math.sqrt(n)
    assert normal == pytest.approx(expected, abs=6e-4)
    found = detectable_by_cases(sd, n)
    assert normal < found < normal * (1 + 1.2 / n)


def test_detectable_by_cases_is_found_by_a_t_test_in_four_of_five() -> None:
    generator = np.random.default_rng(0)
    effect = detectable_by_cases(0.05, 10)
    changes = generator.normal(effect, 0.05, (10_000, 10))
    found = np.asarray(stats.ttest_1samp(changes, 0, axis=1).pvalue) < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.02)


def test_detectable_by_cases_of_too_little_is_undefined() -> None:
    assert math.isnan(detectable_by_cases(0.05, 1))
    assert math.isnan(detectable_by_cases(NAN, 10))
    assert detectable_by_cases(0.0, 10) == 0


def test_without_random_arms_nothing_is_detectable() -> None:
    noise = TrainingNoise(0.005, 4, "seeds")
    assert detectable(0.03, 40, noise, 3, NAN, 0) == math.inf
