"""Statistics of one group of changes: means, intervals, tests, and their adjustment.

Arrays of changes have the axes (seed, case); NaN marks a pair with an undefined Dice.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

Array = npt.NDArray[np.float64]

ALPHA = 0.05
RESAMPLES = 5000


def once_a_patient(
    table: pd.DataFrame, patients: Mapping[str, str], numbers: Sequence[str]
) -> pd.DataFrame:
    """A table of cases with the mean over each patient's scans in their place: two of
    them are no two independent cases, for an interval or a test.

    Args:
        table: with the column `case`; rows of one patient are averaged that agree in
            all other columns but `numbers`.
        patients: as in `matrix.own_cells`; other cases stay as they are.
        numbers: columns that are averaged, NaN left out.

    Returns:
        The same columns, `case` being the patient; `table` itself without such scans.
    """
    several = table["case"].isin(set(patients))
    if not several.any():
        return table
    scans = table[several]
    scans = scans.assign(case=scans["case"].map(dict(patients)))
    keys = [name for name in table if name not in numbers]
    once = scans.groupby(keys, sort=False, dropna=False)[list(numbers)].mean()
    means = once.reset_index()[list(table)]
    return pd.concat([table[~several], means], ignore_index=True)


def case_means(changes: Array) -> Array:
    """Mean change of each case over seeds; cases without a defined pair are left out.

    Args:
        changes: (seed, case).

    Returns:
        (cases with a defined pair,).
    """
    defined = ~np.isnan(changes)
    some = defined.any(axis=0)
    totals = np.where(defined, changes, 0).sum(axis=0)
    means: Array = totals[some] / defined.sum(axis=0)[some]
    return means


def bootstrap_interval(
    changes: Array, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean change over cases.

    Seeds and cases are crossed, and both are drawn with replacement (the pigeonhole
    bootstrap of Owen, Ann. Appl. Stat. 1:386, 2007). With one seed this is the ordinary
    bootstrap over cases. Percentiles of the mean, because they hold for segmentation
    scores where intervals of the median do not (Andre et al., arXiv 2601.17103).

    Args:
        changes: (seed, case).
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Returns:
        Lower and upper limit; NaN for fewer than two cases.
    """
    defined = ~np.isnan(changes)
    some = defined.any(axis=0)
    n_seeds, n = changes.shape[0], int(some.sum())
    if n < 2:
        return math.nan, math.nan
    values = np.where(defined, changes, 0)[:, some]
    defined = defined[:, some]
    generator = np.random.default_rng(seed)
    # How often each seed and each case was drawn: multinomial counts are the same as
    # drawing indices, and make the means a matrix product.
    seeds = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), resamples)
    cases = generator.multinomial(n, np.full(n, 1 / n), resamples)
    pairs = seeds @ defined
    means = (seeds @ values) / np.where(pairs > 0, pairs, 1)
    weights = np.where(pairs > 0, cases, 0)
    drawn = weights.sum(axis=1)
    totals = (weights * means).sum(axis=1)[drawn > 0] / drawn[drawn > 0]
    low, high = np.quantile(totals, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def hodges_lehmann(differences: Array) -> float:
    """Median of the means of all pairs of differences, each with itself included.

    The shift that goes with the signed-rank test (Hodges and Lehmann, Ann. Math. Stat.
    34:598, 1963). NaN for no differences.
    """
    if differences.size == 0:
        return math.nan
    first, second = np.triu_indices(differences.size)
    return float(np.median((differences[first] + differences[second]) / 2))


def signed_rank_p(differences: Array) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 if all differences are zero.

    Differences are rounded, since the rounding errors of a subtraction untie ranks.
    NaN for no differences.
    """
    if differences.size == 0:
        return math.nan
    rounded = np.round(differences, 12)
    if not rounded.any():
        return 1.0
    return float(stats.wilcoxon(rounded).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Scand. J. Stat. 6:65, 1979); NaN stays and is not
    counted."""
    adjusted = [math.nan] * len(p_values)
    order = sorted(
        (i for i, p in enumerate(p_values) if not math.isnan(p)),
        key=p_values.__getitem__,
    )
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def describe(
    changes: Array, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, float | int]:
    """Statistics of one group of cases in one arm and region.

    Args:
        changes: (seed, case).
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Returns:
        `n` cases with a defined pair, `n_undefined` pairs (seed x case) dropped,
        `mean`, `median`, `fraction_improved`, `ci_low`, `ci_high`, `wilcoxon_p`,
        `hodges_lehmann`; each case counts once, with its mean over seeds.
    """
    means = case_means(changes)
    low, high = bootstrap_interval(changes, resamples, seed)
    return {
        "n": means.size,
        "n_undefined": int(np.isnan(changes).sum()),
        "mean": mean_or_nan(means),
        "median": float(np.median(means)) if means.size else math.nan,
        "fraction_improved": mean_or_nan((means > 0).astype(float)),
        "ci_low": low,
        "ci_high": high,
        "wilcoxon_p": signed_rank_p(means),
        "hodges_lehmann": hodges_lehmann(means),
    }


def mean_or_nan(values: Array) -> float:
    """Mean of all values; NaN of none."""
    return float(values.mean()) if values.size else math.nan


def sd_or_nan(values: Array) -> float:
    """Standard deviation (n - 1) of all values; NaN of fewer than two."""
    return float(values.std(ddof=1)) if values.size > 1 else math.nan
