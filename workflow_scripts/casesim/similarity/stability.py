"""Whether other trainings and other columns would have named the same worst cluster.

A similarity matrix (see `matrix`) is one draw of two things: of the recipients that
happen to be its columns, and of the noise of its trainings. `worst_shares` draws both
again; `agreement` compares the row means of cases that were fine-tuned twice.
docs/method.md says how to read the numbers.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from casesim.files import atomic_path
from casesim.similarity.cut import cut
from casesim.similarity.distances import distances
from casesim.similarity.matrix import own_cells, row_statistics
from casesim.similarity.tree import upgma

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

RESAMPLES = 500
LEVEL = 0.95
# The bootstrap distribution of fewer pairs' rank correlation has a handful of steps.
FEWEST_FOR_INTERVAL = 5
ICC_FORMULA = (
    "one-way random effects, single measurement: (MSB - MSW) / (MSB + (k - 1) MSW) "
    "with k = 2 fits of a case; ICC(1,1) of Shrout and Fleiss, Psychol. Bull. 86:420, "
    "1979"
)


@dataclass(frozen=True)
class Shares:
    """How often each case was in the worst cluster of a resample.

    Attributes:
        worst: share of all resamples, in the order of the matrix's sorted rows.
        undecided: resamples in which no cluster could be called worst.
    """

    worst: FloatArray
    undecided: int


def worst_shares(
    matrix: pd.DataFrame,
    refits: pd.DataFrame | None = None,
    metric: str = "euclidean",
    number: Any = "auto",
    min_size: int = 2,
    max_removed_share: float = 0.3,
    resamples: int = RESAMPLES,
    seed: int = 0,
    patients: Mapping[str, str] | None = None,
) -> Shares:
    """Share of resamples in which each train case is in the worst cluster.

    A resample draws the columns with replacement, takes one of the two rows of each
    refitted case with equal chance, builds the tree, cuts it and names the worst
    cluster, as `clustering.cluster` does with the matrix itself. With the metric
    `dice`, which compares case with case, the tree keeps its columns, and only the row
    means come from the drawn ones.

    Args:
        matrix: (train cases, pool cases), Dice.
        refits: rows of the refitted cases, with the same columns; None for none.
        metric, number, min_size, max_removed_share: as in `clustering.cluster`.
        resamples: how many.
        seed: of the draws.
        patients: as in `matrix.own_cells`.

    Raises:
        ValueError: `refits` has other columns, or a row that the matrix has not.
        UserError: as `cut.cut`.
    """
    matrix = matrix.sort_index().sort_index(axis=1)
    values = np.stack([matrix.to_numpy(float)] * 2)
    refitted = np.zeros(len(matrix), dtype=bool)
    if refits is not None and len(refits):
        _check_refits(matrix, refits)
        rows = matrix.index.get_indexer(refits.index)
        values[1, rows] = refits[matrix.columns].to_numpy(float)
        refitted[rows] = True
    own = own_cells(list(matrix.index), list(matrix.columns), patients)
    generator = np.random.default_rng(seed)
    counts = np.zeros(len(matrix))
    undecided = 0
    for _ in range(resamples):
        columns = generator.integers(matrix.shape[1], size=matrix.shape[1])
        second = refitted & (generator.random(len(matrix)) < 0.5)
        table = pd.DataFrame(
            np.where(second[:, None], values[1], values[0]),
            index=matrix.index,
            columns=matrix.columns,
        )
        drawn = table.iloc[:, columns]
        condensed = distances(table if metric == "dice" else drawn, metric)
        worst = None
        if not np.isnan(condensed).all():
            means = _means(drawn.to_numpy(), ~own[:, columns])
            tree = upgma(condensed)
            chosen = cut(tree, condensed, means, number, min_size, max_removed_share)
            worst = chosen.worst
        if worst is None:
            undecided += 1
        else:
            counts += chosen.labels == worst
    return Shares(counts / resamples, undecided)


def _check_refits(matrix: pd.DataFrame, refits: pd.DataFrame) -> None:
    if set(refits.columns) != set(matrix.columns):
        raise ValueError("refits and matrix were evaluated on different cases")
    if strangers := sorted(set(refits.index) - set(matrix.index)):
        raise ValueError(f"refits without a row in the matrix: {strangers}")


def _means(values: FloatArray, wanted: BoolArray) -> FloatArray:
    """Mean of the wanted and defined values of each row; NaN where there is none."""
    wanted = wanted & ~np.isnan(values)
    number = wanted.sum(axis=1)
    totals = np.where(wanted, values, 0).sum(axis=1)
    means: FloatArray = np.where(number > 0, totals / np.maximum(number, 1), np.nan)
    return means


@dataclass(frozen=True)
class Agreement:
    """Two fits of the same cases, by their row means.

    Attributes:
        n: cases with two defined row means.
        spearman, spearman_low, spearman_high: rank correlation and 95 % percentile
            bootstrap interval over cases.
        sd_between_fits: standard deviation of a row mean between fits of one case.
        sd_between_cases: standard deviation of the cases' true row means.
        icc, icc_low, icc_high: share of the variance that is the cases', and its exact
            95 % interval under normality (`ICC_FORMULA`).
    """

    n: int
    spearman: float
    spearman_low: float
    spearman_high: float
    sd_between_fits: float
    sd_between_cases: float
    icc: float
    icc_low: float
    icc_high: float


def agreement(
    first: FloatArray, second: FloatArray, resamples: int = RESAMPLES, seed: int = 0
) -> Agreement:
    """Compare the row means of two fits of each case.

    Args:
        first, second: (cases,); pairs with a NaN are left out.
        resamples: bootstrap samples of the rank correlation.
        seed: of the bootstrap.

    Returns:
        NaN for what too few cases leave undefined: everything with fewer than two,
        Spearman's interval with fewer than five.
    """
    pairs = np.column_stack([first, second])
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    rho = rank_correlation(pairs[None])[0] if len(pairs) > 1 else math.nan
    low = high = math.nan
    if len(pairs) >= FEWEST_FOR_INTERVAL:
        generator = np.random.default_rng(seed)
        drawn = generator.integers(len(pairs), size=(resamples, len(pairs)))
        rhos = rank_correlation(pairs[drawn])
        if not np.isnan(rhos).all():
            low, high = np.nanquantile(rhos, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Agreement(len(pairs), float(rho), float(low), float(high), *_variance(pairs))


def rank_correlation(pairs: FloatArray) -> FloatArray:
    """Spearman's correlation of many samples at once; NaN where one side is constant.

    Args:
        pairs: (samples, cases, 2).

    Returns:
        (samples,), as `scipy.stats.spearmanr` of each.
    """
    ranks = stats.rankdata(pairs, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    squares = (ranks**2).sum(axis=1).prod(axis=1)
    products = ranks.prod(axis=2).sum(axis=1)
    defined = squares > 0
    rho: FloatArray = np.where(
        defined, products / np.sqrt(np.where(defined, squares, 1)), np.nan
    )
    return rho


def _variance(values: FloatArray) -> tuple[float, float, float, float, float]:
    """Standard deviation within and between cases, and ICC(1,1) with its interval.

    The interval is that of Shrout and Fleiss (1979), from the F distribution.

    Args:
        values: (cases, fits).
    """
    n, k = values.shape
    if n < 2:
        return (math.nan,) * 5
    means = values.mean(axis=1)
    between = float(k * means.var(ddof=1))
    within = float(((values - means[:, None]) ** 2).sum() / (n * (k - 1)))
    spreads = math.sqrt(within), math.sqrt(max(0.0, (between - within) / k))
    if within == 0:
        value = 1.0 if between > 0 else math.nan
        return (*spreads, value, value, value)
    freedom = n - 1, n * (k - 1)
    ratio = between / within
    tail = (1 + LEVEL) / 2
    low = ratio / float(stats.f.ppf(tail, *freedom))
    high = ratio * float(stats.f.ppf(tail, *freedom[::-1]))
    icc, icc_low, icc_high = ((f - 1) / (f + k - 1) for f in (ratio, low, high))
    return (*spreads, icc, icc_low, icc_high)


@dataclass(frozen=True)
class Stability:
    """All that the `stability` rule writes."""

    table: pd.DataFrame
    summary: dict[str, Any]


def stability(
    matrix: pd.DataFrame,
    clusters: pd.DataFrame,
    refits: pd.DataFrame | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    patients: Mapping[str, str] | None = None,
    **clustered: Any,
) -> Stability:
    """How often each train case is in the worst cluster, and how well refits agree.

    Args:
        matrix: (train cases, pool cases), Dice.
        clusters: from `clustering.cluster` with the same matrix.
        refits: rows of the cases that were fine-tuned twice; None for none.
        resamples, seed, patients: as in `worst_shares`.
        clustered: how the cases were clustered, as in `worst_shares`: `metric`,
            `number`, `min_size`, `max_removed_share`.

    Returns:
        table: `case, cluster, worst, row_mean, refit_row_mean, worst_share`, the most
        often worst first; `refit_row_mean` is NaN for cases without a refit.
        summary: what `stability.json` holds.
    """
    matrix = matrix.sort_index()
    again = pd.Series(dtype=float)
    if refits is not None:
        again = row_statistics(refits, patients)["row_mean"]
    shares = worst_shares(
        matrix, refits, resamples=resamples, seed=seed, patients=patients, **clustered
    )
    table = pd.DataFrame(
        {
            "case": matrix.index,
            "row_mean": row_statistics(matrix, patients)["row_mean"].to_numpy(),
            "worst_share": shares.worst,
        }
    ).merge(clusters[["case", "cluster", "worst"]], on="case", validate="one_to_one")
    table["refit_row_mean"] = table["case"].map(again).astype(float)
    table = table.sort_values(
        ["worst_share", "row_mean", "case"],
        ascending=[False, True, True],
        ignore_index=True,
    )
    columns = ["case", "cluster", "worst", "row_mean", "refit_row_mean", "worst_share"]
    table = table[columns]
    pairs = None
    if len(again):
        means = table[["row_mean", "refit_row_mean"]].to_numpy(float)
        pairs = agreement(means[:, 0], means[:, 1], resamples, seed)
    summary = {
        "resamples": resamples,
        "seed": seed,
        "resampled": [
            "columns",
            *(["fits of the refitted cases"] if len(again) else []),
        ],
        "undecided_resamples": shares.undecided,
        "refitted": sorted(map(str, again.index)),
        "agreement": None if pairs is None else _finite(asdict(pairs)),
        "icc_formula": ICC_FORMULA,
        "statement": _statement(table, pairs, shares, resamples),
    }
    return Stability(table, summary)


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    # JSON has no NaN.
    return {key: v if math.isfinite(v) else None for key, v in values.items()}


def _statement(
    table: pd.DataFrame, pairs: Agreement | None, shares: Shares, resamples: int
) -> str:
    parts = []
    inside, outside = (table[table["worst"] == is_worst] for is_worst in (True, False))
    if len(inside):
        parts.append(
            f"Cases of the worst cluster ({len(inside)}) are in it in "
            f"{_range(inside['worst_share'])} of {resamples} resamples, the others in "
            f"{_range(outside['worst_share'])}."
        )
    else:
        parts.append("There is no worst cluster whose stability could be told.")
    if shares.undecided:
        parts.append(
            f"In {shares.undecided / resamples:.0%} of the resamples no cluster could "
            "be removed."
        )
    if pairs is None:
        parts.append(
            "No case was fine-tuned twice (stability.refits is 0), so training noise "
            "is not in these numbers."
        )
    else:
        rank = _interval(pairs.spearman, pairs.spearman_low, pairs.spearman_high)
        icc = _interval(pairs.icc, pairs.icc_low, pairs.icc_high)
        parts.append(
            f"{pairs.n} cases fine-tuned twice: Spearman's correlation of their row "
            f"means {rank}, intraclass correlation {icc}. A row mean has a standard "
            f"deviation of {_number(pairs.sd_between_fits, 4)} between fits of a case "
            f"and of {_number(pairs.sd_between_cases, 4)} between cases."
        )
    return " ".join(parts)


def _range(shares: Sequence[float] | pd.Series) -> str:
    low, high = min(shares), max(shares)
    return f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"


def _interval(value: float, low: float, high: float) -> str:
    if math.isnan(low):
        return f"{_number(value)} (too few cases for an interval)"
    return f"{_number(value)} (95 % interval {_number(low)} to {_number(high)})"


def _number(value: float, digits: int = 2) -> str:
    return "unknown" if math.isnan(value) else f"{value:.{digits}f}"


def write(
    result: Stability, table: str | PathLike[str], summary: str | PathLike[str]
) -> None:
    """Write `stability.tsv` (undefined values empty) and `stability.json`."""
    words = result.table["worst"].map({True: "true", False: "false"})
    with atomic_path(table) as temporary:
        result.table.assign(worst=words).to_csv(temporary, sep="\t", index=False)
    with atomic_path(summary) as temporary:
        text = json.dumps(result.summary, indent=2, allow_nan=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")
