"""Training noise, random arms, and the smallest change that could be seen."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from casesim.pruning.statistics import ALPHA

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

POWER = 0.8


@dataclass(frozen=True)
class TrainingNoise:
    """How much a group's mean Dice differs between two trainings of the same kind.

    Attributes:
        sd: standard deviation of one training's mean Dice.
        df: degrees of freedom of the estimate.
        source: `seeds`, or `random_arms` where there is one seed only.
    """

    sd: float
    df: int
    source: str


def training_noise(means: Array, randoms: Mask) -> TrainingNoise | None:
    """Estimate the training noise from the mean changes of all arms.

    With several seeds: what arm and seed do not explain in a table arms x seeds, to
    which the full set belongs as a row of zeros. All changes of one seed share its full
    model, so its noise is a seed effect and does not bias the estimate. With one seed:
    the spread of the random arms, which holds what their different removals do as well,
    and so is rather too large.

    Args:
        means: mean change, (arm, seed).
        randoms: which arms are random, (arm,).

    Returns:
        None if neither is possible (one seed and fewer than two random arms).
    """
    n_arms, n_seeds = means.shape
    if n_seeds > 1:
        table = np.vstack([np.zeros(n_seeds), means])
        residuals = (
            table
            - table.mean(axis=1, keepdims=True)
            - table.mean(axis=0, keepdims=True)
            + table.mean()
        )
        df = n_arms * (n_seeds - 1)
        return TrainingNoise(float(np.sqrt((residuals**2).sum() / df)), df, "seeds")
    if randoms.sum() > 1:
        sd = float(means[randoms, 0].std(ddof=1))
        return TrainingNoise(sd, int(randoms.sum()) - 1, "random_arms")
    return None


def change_interval(
    mean: float, case_sd: float, n: int, noise: TrainingNoise, n_seeds: int
) -> tuple[float, float]:
    """95 % interval of a mean change, for other cases *and* other trainings.

    The variance is that of two trainings' means over the seeds, plus that of the cases;
    degrees of freedom after Welch and Satterthwaite.

    Args:
        mean: mean change over cases and seeds.
        case_sd: standard deviation of the cases' mean changes.
        n: number of cases, at least 2.
        noise: the training noise.
        n_seeds: number of seeds.
    """
    half = _half_width(2 * noise.sd**2 / n_seeds, noise.df, case_sd**2 / n, n - 1)
    return mean - float(half), mean + float(half)


def _half_width(
    of_training: float | Array, training_df: int, of_cases: float | Array, cases_df: int
) -> Array:
    """Half the width of the interval of a sum of two terms with these variances."""
    variance = np.asarray(of_training + of_cases, dtype=np.float64)
    spread = np.asarray(of_training**2 / training_df + of_cases**2 / cases_df)
    df = np.where(spread > 0, variance**2 / np.where(spread > 0, spread, 1), 1)
    half: Array = stats.t.ppf(1 - ALPHA / 2, df) * np.sqrt(variance)
    return half


@dataclass(frozen=True)
class AgainstRandom:
    """An arm's mean change beside those of the random arms.

    Attributes:
        p: (1 + random arms at least as good) / (R + 1), one-sided.
        floor: the smallest value that p can take, 1 / (R + 1).
        spread_p: one-sided p of a t test that the arm is one more draw from a normal
            distribution of random arms; NaN for fewer than two.
        better: the decision: by p where its floor allows it, by `spread_p` else.
    """

    p: float
    floor: float
    spread_p: float
    better: bool


def against_random(change: float, randoms: Array) -> AgainstRandom:
    """Compare an arm with the random arms (Phipson and Smyth, SAGMB 9:39, 2010).

    Args:
        change: mean change of the arm.
        randoms: mean changes of the random arms, (R,).
    """
    number = randoms.size
    # One full set is behind all of them, so equal changes may differ by rounding only.
    p = (1 + int((randoms >= change - 1e-12).sum())) / (number + 1)
    floor = 1 / (number + 1)
    spread_p = math.nan
    if number > 1:
        ahead = change - randoms.mean()
        error = randoms.std(ddof=1) * math.sqrt(1 + 1 / number)
        if error > 0:
            spread_p = float(stats.t.sf(ahead / error, number - 1))
        else:
            spread_p = 0.0 if ahead > 0 else 1.0
    better = p <= ALPHA if floor <= ALPHA else spread_p <= ALPHA
    return AgainstRandom(p, floor, spread_p, better)


def detectable_by_cases(sd: float, n: int) -> float:
    """Mean change that a paired t test over cases detects with 80 % power.

    Takes the two models as given: says nothing on training noise. Noncentral t,
    two-sided alpha 0.05.

    Args:
        sd: standard deviation of the cases' changes.
        n: number of cases; NaN for fewer than two.
    """
    if n < 2 or math.isnan(sd):
        return math.nan
    if sd == 0:
        return 0.0
    df = n - 1
    critical = stats.t.ppf(1 - ALPHA / 2, df)

    def missing_power(effect: float) -> float:
        # The other tail is left out: at this power it is practically empty.
        return float(stats.nct.sf(critical, df, effect)) - POWER

    return float(optimize.brentq(missing_power, 0.1, 10 * critical) * sd / math.sqrt(n))


def detectable(
    case_sd: float,
    n: int,
    noise: TrainingNoise,
    n_seeds: int,
    random_sd: float,
    n_randoms: int,
    draws: int = 10_000,
    seed: int = 0,
) -> float:
    """Smallest true change for which the verdict is *helps* in 80 % of experiments.

    Both conditions of the verdict are played through with normal noise of the given
    size. Each draw has a threshold that the true change must pass; this is their 80th
    percentile.

    Args:
        case_sd: standard deviation of the cases' mean changes.
        n: number of cases, at least 2.
        noise: the training noise.
        n_seeds: number of seeds.
        random_sd: standard deviation of the random arms' mean changes.
        n_randoms: number of random arms; fewer than two detect nothing.
        draws: number of experiments.
        seed: of the draws.

    Returns:
        A change of Dice; infinite if no change can be detected.
    """
    if n_randoms < 2:
        return math.inf
    generator = np.random.default_rng(seed)
    of_training = noise.sd / math.sqrt(n_seeds)
    arm, full = of_training * generator.standard_normal((2, draws))
    cases = case_sd / math.sqrt(n) * generator.standard_normal(draws)
    randoms = random_sd * generator.standard_normal((draws, n_randoms))
    if noise.source == "seeds":
        estimated = of_training**2 * generator.chisquare(noise.df, draws) / noise.df
    else:
        estimated = randoms.var(axis=1, ddof=1)
    of_cases = case_sd**2 / n * generator.chisquare(n - 1, draws) / (n - 1)
    beyond_zero = _half_width(2 * estimated, noise.df, of_cases, n - 1)
    beyond_zero -= arm - full + cases
    if 1 / (n_randoms + 1) <= ALPHA:
        rank = math.floor(ALPHA * (n_randoms + 1) + 1e-9)
        beyond_randoms = np.sort(randoms, axis=1)[:, -rank] - arm
    else:
        error = randoms.std(axis=1, ddof=1) * math.sqrt(1 + 1 / n_randoms)
        critical = stats.t.ppf(1 - ALPHA, n_randoms - 1)
        beyond_randoms = randoms.mean(axis=1) + critical * error - arm
    return float(np.quantile(np.maximum(beyond_zero, beyond_randoms), POWER))
