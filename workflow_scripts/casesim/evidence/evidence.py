"""Whether leaving cases out helped, and whether this design could have told.

`comparison` lines up every test case before and after a removal, `summary` draws the
statistics and the verdict from it, `detection` measures rankings of cases against known
defects. The rules of the verdict, and what it does not mean, are in docs/method.md; the
functions here follow its order and its names.

Changes are differences of Dice, after minus before. Arrays of changes have the axes
(seed, case), or (arm, seed, case); NaN marks a pair with an undefined Dice.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, stats
from sklearn import metrics

from casesim.cohort.phantom import CONTROLS, IMAGE_DEFECTS, LABEL_DEFECTS
from casesim.errors import UserError
from casesim.files import atomic_path
from casesim.pruning.pruning import FULL, Retrained, full_model, is_random

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

ALPHA = 0.05
POWER = 0.8
# Identical nnU-Net runs differ by a point of Dice, so less than two says little.
RELEVANT_CHANGE = 0.02
# With five cases no two-sided signed-rank test can come below 0.0625.
MIN_HELD_OUT = 6
RESAMPLES = 5000
PRIMARY_REGION = "mean"
HEADLINE_ARM = "worst_cluster"
GROUPS = ("held_out", "kept", "removed")


# --- Before and after, case by case ---------------------------------------------------


def check_split(cohort: pd.DataFrame, removed: Mapping[str, Iterable[str]]) -> None:
    """Assert that held-out, kept and removed cases are kept apart.

    Args:
        cohort: `cohort.tsv`, with columns `case`, `role` and `train_case`.
        removed: arm to the cases that it removes.

    Raises:
        UserError: a case has two roles or an unknown one, a held-out case is a train
            case, or an arm removes a case that is not a train case (a leak when it is
            held out).
    """
    if repeated := sorted(set(cohort["case"][cohort["case"].duplicated()])):
        raise UserError(
            f"Cases that results/cohort.tsv lists twice: {', '.join(repeated)}. Delete "
            "it to have it made again."
        )
    role = dict(zip(cohort["case"], cohort["role"], strict=True))
    if unknown := sorted(set(role.values()) - {"pool", "held_out"}):
        raise UserError(
            f"Unknown roles in results/cohort.tsv: {', '.join(unknown)}. Delete it to "
            "have it made again."
        )
    is_train = cohort["train_case"].astype(str).str.lower() == "true"
    train = set(cohort["case"][is_train])
    if leaked := sorted(case for case in train if role[case] == "held_out"):
        raise UserError(
            f"Held-out cases that are train cases: {', '.join(leaked)}. They cannot "
            "judge models that were trained on them; take them out of "
            "`cohort.train_cases`."
        )
    for arm, cases in removed.items():
        leaked = sorted(case for case in cases if role.get(case) == "held_out")
        strangers = sorted(set(cases) - train)
        if leaked or strangers:
            what = "held out" if leaked else "no train cases"
            raise UserError(
                f"Arm {arm} removes cases that are {what}: "
                f"{', '.join(leaked or strangers)}. Delete "
                f"results/pruning/{arm}/removed_cases.txt to have them chosen again."
            )


def comparison(
    before: Iterable[pd.DataFrame],
    after: Iterable[pd.DataFrame],
    models: Mapping[str, Retrained],
    base_seed: int,
    removed: Mapping[str, Sequence[str]],
    cohort: pd.DataFrame,
) -> pd.DataFrame:
    """Dice of every test case before and after the removals of each arm.

    A retrained model is compared with the model of the full pool that was trained with
    the same seed: `base` for the base seed, `full-seed<S>` for another.

    Args:
        before: score tables of the models of the full pool, with columns `model`,
            `case`, `region` and `dice`.
        after: score tables of the retrained models.
        models: from `pruning.retrained_models`.
        base_seed: the seed of `base`.
        removed: arm to the cases that it removes.
        cohort: `cohort.tsv`.

    Returns:
        Columns `arm`, `seed`, `case`, `role`, `removed` (bool), `region`,
        `dice_before`, `dice_after`, `delta` (after - before; NaN where one of the two
        is undefined).

    Raises:
        UserError: a leak (see `check_split`), a model without scores, or two models
            that were scored on different cases.
    """
    check_split(cohort, removed)
    role = dict(zip(cohort["case"], cohort["role"], strict=True))
    scores = _dice_by_model([*before, *after])
    tables = []
    for name, model in models.items():
        arm = model["arm"]
        if arm == FULL:
            continue
        full = full_model(model["seed"], base_seed)
        if missing := [m for m in (full, name) if m not in scores]:
            raise UserError(
                f"There are no scores of the model {missing[0]}: its table in "
                "results/scores is missing or holds another model. Delete the table to "
                "have it made again."
            )
        pair = pd.concat(
            {"dice_before": scores[full], "dice_after": scores[name]}, axis=1
        )
        lone = pair.index.difference(
            scores[full].index.intersection(scores[name].index)
        )
        if len(lone):
            raise UserError(
                f"The models {full} and {name} were scored on different cases or "
                f"regions: {', '.join('/'.join(key) for key in lone[:5])}. Delete the "
                "score table of the model that lacks them to have it made again."
            )
        table = pair.reset_index()
        if strangers := sorted(set(table["case"]) - set(role)):
            raise UserError(
                f"{full} and {name} were scored on {strangers[0]}, which is not in "
                "results/cohort.tsv. Delete their tables in results/scores to have "
                "them made again."
            )
        table.insert(0, "arm", arm)
        table.insert(1, "seed", model["seed"])
        table.insert(3, "role", table["case"].map(role))
        table.insert(4, "removed", table["case"].isin(list(removed[arm])))
        tables.append(table)
    columns = ["arm", "seed", "case", "role", "removed", "region"]
    columns += ["dice_before", "dice_after"]
    if not tables:
        return pd.DataFrame(columns=[*columns, "delta"])
    merged = pd.concat(tables, ignore_index=True)[columns]
    merged["delta"] = merged["dice_after"] - merged["dice_before"]
    return merged


def _dice_by_model(tables: Iterable[pd.DataFrame]) -> dict[str, pd.Series]:
    """Dice indexed by (case, region), sorted, for each model."""
    scores: dict[str, pd.Series] = {}
    for table in tables:
        for name, rows in table.groupby("model"):
            dice = rows.set_index(["case", "region"])["dice"].astype(float).sort_index()
            if dice.index.has_duplicates:
                twice = dice.index[dice.index.duplicated()][0]
                raise UserError(
                    f"The scores of {name} list {'/'.join(twice)} twice. Delete its "
                    "table in results/scores to have it made again."
                )
            scores[str(name).removeprefix("retrained/")] = dice
    return scores


def group(table: pd.DataFrame) -> pd.Series:
    """`held_out`, `kept` or `removed` for each row of a comparison table.

    Raises:
        UserError: a held-out case is marked as removed.
    """
    held_out = table["role"] == "held_out"
    removed = table["removed"].astype(bool)
    if leaked := sorted(set(table["case"][held_out & removed])):
        raise UserError(f"Held-out cases are marked as removed: {', '.join(leaked)}.")
    values = np.select([held_out, removed], ["held_out", "removed"], "kept")
    return pd.Series(values, index=table.index, name="group")


def extremes(table: pd.DataFrame, arm: str, seed: int) -> list[tuple[str, str, float]]:
    """The case that improved most and the one that worsened most, removed ones aside.

    Args:
        table: from `comparison`.
        arm, seed: which model is compared with the full set.

    Returns:
        A word (`most improved`, `most worsened`; `least improved` where none
        worsened, `least worsened` where none improved), the case, and its change of
        mean Dice. No case comes twice, and none if all changes are undefined; ties by
        case id.
    """
    one = table.query("arm == @arm and seed == @seed and region == @PRIMARY_REGION")
    one = one[group(one) != "removed"].dropna(subset=["delta"])
    ordered = sorted(zip(one["delta"].astype(float), one["case"], strict=True))
    if not ordered:
        return []
    lowest = ordered[0]
    highest = min(pair for pair in ordered if pair[0] == ordered[-1][0])
    best = "least worsened" if highest[0] < 0 else "most improved"
    worst = "least improved" if lowest[0] > 0 else "most worsened"
    chosen = {highest[1]: (best, highest[0])}
    chosen.setdefault(lowest[1], (worst, lowest[0]))
    return [(word, str(case), delta) for case, (word, delta) in chosen.items()]


def write_comparison(table: pd.DataFrame, path: str | PathLike[str]) -> None:
    """Write `comparison.tsv`: booleans in lower case, undefined values left empty."""
    text = table.assign(
        removed=np.where(table["removed"].astype(bool), "true", "false")
    )
    with atomic_path(path) as temporary:
        text.to_csv(temporary, sep="\t", index=False)


# --- One group of changes -------------------------------------------------------------


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
        "mean": _mean(means),
        "median": float(np.median(means)) if means.size else math.nan,
        "fraction_improved": _mean((means > 0).astype(float)),
        "ci_low": low,
        "ci_high": high,
        "wilcoxon_p": signed_rank_p(means),
        "hodges_lehmann": hodges_lehmann(means),
    }


# --- Noise, random arms, and what could have been seen --------------------------------


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


# --- The verdict ----------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """What the verdict on one arm rests on: changes on held-out cases.

    Attributes:
        arm: name of the arm.
        n: number of held-out cases with a defined pair.
        mean: mean change over cases.
        case_sd: standard deviation of the cases' mean changes.
        mean_by_seed: mean change for each seed.
        noise: training noise, None where unknown.
        n_randoms: number of random arms.
        random_sd: standard deviation of the random arms' mean changes; NaN for fewer
            than two.
        random: the comparison with the random arms, None where there are none and for
            random arms themselves.
    """

    arm: str
    n: int
    mean: float
    case_sd: float
    mean_by_seed: list[float]
    noise: TrainingNoise | None
    n_randoms: int
    random_sd: float
    random: AgainstRandom | None

    @property
    def n_seeds(self) -> int:
        return len(self.mean_by_seed)

    @property
    def interval(self) -> tuple[float, float]:
        """See `change_interval`; NaN where the noise is unknown."""
        if self.noise is None or self.n < 2:
            return math.nan, math.nan
        return change_interval(
            self.mean, self.case_sd, self.n, self.noise, self.n_seeds
        )

    @property
    def detectable(self) -> float:
        """See `detectable`; NaN where the noise is unknown."""
        if self.noise is None or self.n < 2:
            return math.nan
        return detectable(
            self.case_sd,
            self.n,
            self.noise,
            self.n_seeds,
            self.random_sd,
            self.n_randoms,
        )


def gather(arms: Sequence[str], changes: Array) -> list[Evidence]:
    """The evidence on each arm.

    Args:
        arms: names of all arms, random ones included.
        changes: changes on the held-out cases, (arm, seed, case).
    """
    is_control = np.array([is_random(arm) for arm in arms], dtype=bool)
    defined = ~np.isnan(changes)
    number = defined.sum(axis=2)
    totals = np.where(defined, changes, 0).sum(axis=2)
    # (arm, seed); without a mean for each, nothing can be said on noise and controls.
    means = np.where(number > 0, totals / np.maximum(number, 1), np.nan)
    complete = changes.size > 0 and bool((number > 0).all())
    noise = training_noise(means, is_control) if complete else None
    randoms = means[is_control].mean(axis=1)
    found = []
    for a, arm in enumerate(arms):
        by_case = case_means(changes[a])
        beside = None
        if complete and is_control.any() and not is_control[a]:
            beside = against_random(float(means[a].mean()), randoms)
        found.append(
            Evidence(
                arm=arm,
                n=by_case.size,
                mean=_mean(by_case),
                case_sd=_sd(by_case),
                mean_by_seed=[float(value) for value in means[a]],
                noise=noise,
                n_randoms=randoms.size,
                random_sd=_sd(randoms),
                random=beside,
            )
        )
    return found


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else math.nan


def _sd(values: Array) -> float:
    return float(values.std(ddof=1)) if values.size > 1 else math.nan


@dataclass(frozen=True)
class Verdict:
    """One of `helps`, `harms`, `no difference larger than x`, `cannot tell`; a
    sentence."""

    word: str
    sentence: str


def verdict(evidence: Evidence) -> Verdict:
    """Judge one arm by the rules in docs/method.md, which are tried in this order."""
    e = evidence
    if e.n == 0:
        return _cannot_tell(e, "there are no held-out cases")
    if e.n < MIN_HELD_OUT:
        return _cannot_tell(
            e, f"{e.n} held-out cases are too few (at least {MIN_HELD_OUT})"
        )
    if e.noise is None and e.n_seeds == 1:
        return _cannot_tell(
            e,
            "the training noise is unknown: there is one seed, and fewer than two "
            "random arms",
        )
    if e.noise is None:
        return _cannot_tell(
            e, "one of the models compared has no held-out case with a defined Dice"
        )
    low, high = e.interval
    seeds = f"{e.n_seeds} seed" if e.n_seeds == 1 else f"{e.n_seeds} seeds"
    change = (
        f"held-out Dice changes by {e.mean:+.3f} (95 % interval {low:+.3f} to "
        f"{high:+.3f}, training noise included; {e.n} cases, {seeds})"
    )
    if high < 0:
        return Verdict("harms", f"{e.arm} harms: {change}.")
    if low > 0:
        if e.random is None:
            return _cannot_tell(e, f"{change}, but there is no random arm beside it")
        beside = _beside_random(e.random, e.n_randoms)
        if e.random.better:
            return Verdict("helps", f"{e.arm} helps: {change}, {beside}.")
        if e.random.floor > ALPHA:
            return _cannot_tell(
                e, f"{change}, but the random arms are too few or too close: {beside}"
            )
        return _cannot_tell(e, f"{change}, but random removals do as well: {beside}")
    limit = max(-low, high)
    if limit <= RELEVANT_CHANGE:
        # Rounded up, so that the sentence does not claim more than the interval.
        word = f"no difference larger than {math.ceil(limit * 1000 - 1e-9) / 1000:.3f}"
        return Verdict(word, f"{e.arm} makes {word}: {change}.")
    of_training = 2 * e.noise.sd**2 / e.n_seeds
    if e.noise.source == "random_arms":
        remedy = "one seed leaves the training noise to be guessed from the random arms"
    elif of_training > e.case_sd**2 / e.n:
        remedy = "mostly training noise, which more seeds would lower"
    else:
        remedy = (
            "mostly differences between cases, of which more would have to be held out"
        )
    return _cannot_tell(
        e, f"{change}: the interval reaches beyond {RELEVANT_CHANGE} ({remedy})"
    )


def _cannot_tell(e: Evidence, reason: str) -> Verdict:
    return Verdict("cannot tell", f"{e.arm}: cannot tell, because {reason}.")


def _beside_random(random: AgainstRandom, number: int) -> str:
    ahead = round((1 - random.p) * (number + 1))
    text = f"better than {ahead} of {number} random arms (p = {random.p:.3g}"
    if random.floor > ALPHA:
        text += f", cannot be below {random.floor:.2g}"
        if not math.isnan(random.spread_p):
            text += f"; p = {random.spread_p:.2g} against their spread"
    return f"{text})"


# --- The summary ----------------------------------------------------------------------


def summary(
    table: pd.DataFrame, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Everything that the comparison says: `summary.json`.

    Args:
        table: from `comparison`.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Returns:
        `verdict` (the sentence on `worst_cluster`, None without that arm), `design`
        (what was compared, and the constants of the rules), `arms`, and `contrasts`
        (`worst_cluster` minus each other chosen arm, held-out cases, primary region).
        Each arm has its removed cases, `verdict` and `sentence` (not the random arms),
        and for each region the groups `held_out`, `kept` and `removed` as `describe`
        gives them. Held-out groups also have `mean_by_seed`, `seed_sd`, `interval_low`
        and `interval_high` (training noise included), `detectable`,
        `detectable_by_cases`, and, for chosen arms, the comparison with the random
        arms; p values adjusted over regions end in `_holm`.

    Raises:
        UserError: a leak, or an arm, seed, case and region without its row.
    """
    cubes = _changes(table)
    arms: dict[str, Any] = {}
    for a, arm in enumerate(cubes.arms):
        removed = [cubes.cases[c] for c in np.flatnonzero(cubes.removed[a])]
        arms[arm] = {"removed_cases": removed, "regions": {}}
    for r, region in enumerate(cubes.regions):
        gathered = gather(cubes.arms, cubes.changes[r][:, :, cubes.held_out])
        for a, evidence in enumerate(gathered):
            masks = {
                "held_out": cubes.held_out,
                "kept": ~cubes.held_out & ~cubes.removed[a],
                "removed": cubes.removed[a],
            }
            groups: dict[str, dict[str, Any]] = {
                name: describe(cubes.changes[r, a][:, mask], resamples, seed)
                for name, mask in masks.items()
            }
            groups["held_out"] |= _judging(evidence)
            arms[evidence.arm]["regions"][region] = groups
            if region == PRIMARY_REGION and not is_random(evidence.arm):
                decision = verdict(evidence)
                arms[evidence.arm] |= {
                    "verdict": decision.word,
                    "sentence": decision.sentence,
                }
    for content in arms.values():
        _adjust(content["regions"])
    return {
        "verdict": arms.get(HEADLINE_ARM, {}).get("sentence"),
        "design": _design(cubes),
        "arms": arms,
        "contrasts": _contrasts(cubes, resamples, seed),
    }


def forest(content: Mapping[str, Any]) -> pd.DataFrame:
    """Each arm's mean change on held-out cases, primary region, and its interval.

    Args:
        content: from `summary`.

    Returns:
        `arm, mean, low, high`, random arms last; NaN where nothing could be told.
    """
    rows = []
    for arm, result in content["arms"].items():
        held_out = result["regions"][PRIMARY_REGION]["held_out"]
        keys = ("mean", "interval_low", "interval_high")
        rows.append((arm, *(held_out[key] for key in keys)))
    table = pd.DataFrame(rows, columns=["arm", "mean", "low", "high"])
    numbers = table.columns[1:]
    table[numbers] = table[numbers].astype(float)
    return table.sort_values("arm", key=lambda arms: arms.map(is_random), kind="stable")


def write_summary(content: Mapping[str, Any], path: str | PathLike[str]) -> None:
    """Write `summary.json`; what is not finite becomes null, as JSON knows no NaN."""
    text = json.dumps(_finite(content), indent=2, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True)
class _Changes:
    """The comparison as arrays: `changes` (region, arm, seed, case), `held_out`
    (case,), `removed` (arm, case)."""

    regions: list[str]
    arms: list[str]
    seeds: list[int]
    cases: list[str]
    changes: Array
    held_out: Mask
    removed: Mask


def _changes(table: pd.DataFrame) -> _Changes:
    groups = group(table)
    region, regions = pd.factorize(table["region"])
    arm, arms = pd.factorize(table["arm"])
    seed, seeds = pd.factorize(table["seed"], sort=True)
    case, cases = pd.factorize(table["case"], sort=True)
    shape = (len(regions), len(arms), len(seeds), len(cases))
    filled = np.zeros(shape, dtype=int)
    np.add.at(filled, (region, arm, seed, case), 1)
    if not (filled == 1).all():
        r, a, s, c = np.argwhere(filled != 1)[0]
        raise UserError(
            f"The comparison needs one row for each arm, seed, case and region, but "
            f"has {filled[r, a, s, c]} of arm {arms[a]}, seed {seeds[s]}, case "
            f"{cases[c]}, region {regions[r]}."
        )
    changes = np.full(shape, np.nan)
    changes[region, arm, seed, case] = table["delta"].to_numpy(dtype=float)
    held_out = np.zeros(len(cases), dtype=bool)
    held_out[case[(groups == "held_out").to_numpy()]] = True
    removed = np.zeros((len(arms), len(cases)), dtype=bool)
    is_removed = (groups == "removed").to_numpy()
    removed[arm[is_removed], case[is_removed]] = True
    return _Changes(
        [str(name) for name in regions],
        [str(name) for name in arms],
        [int(number) for number in seeds],
        [str(name) for name in cases],
        changes,
        held_out,
        removed,
    )


def _judging(e: Evidence) -> dict[str, Any]:
    """What only held-out cases are asked: noise, interval, random arms, power."""
    low, high = e.interval
    result: dict[str, Any] = {
        "mean_by_seed": e.mean_by_seed,
        "seed_sd": _sd(np.array(e.mean_by_seed)),
        "training_sd": e.noise.sd if e.noise else math.nan,
        "training_sd_from": e.noise.source if e.noise else None,
        "interval_low": low,
        "interval_high": high,
    }
    if not is_random(e.arm):
        result |= {
            "detectable": e.detectable,
            "detectable_by_cases": detectable_by_cases(e.case_sd, e.n),
        }
    if e.random is not None:
        result |= {
            "random_p": e.random.p,
            "random_p_floor": e.random.floor,
            "random_spread_p": e.random.spread_p,
        }
    return result


def _adjust(regions: dict[str, dict[str, Any]]) -> None:
    """Holm over regions, in place. The primary region stands alone: it is the question,
    the others are read beside it."""
    for family in (
        [name for name in regions if name == PRIMARY_REGION],
        [name for name in regions if name != PRIMARY_REGION],
    ):
        for name in GROUPS:
            for key in ("wilcoxon_p", "random_p"):
                found = [region for region in family if key in regions[region][name]]
                adjusted = holm([regions[region][name][key] for region in found])
                for region, p in zip(found, adjusted, strict=True):
                    regions[region][name][f"{key}_holm"] = p


def _design(cubes: _Changes) -> dict[str, Any]:
    randoms = sum(is_random(arm) for arm in cubes.arms)
    noise = "estimated from the seeds"
    if len(cubes.seeds) == 1:
        noise = "one seed: training noise unknown"
        if randoms > 1:
            noise += "; the spread of the random arms stands in for it"
    return {
        "arms": cubes.arms,
        "seeds": cubes.seeds,
        "random_arms": randoms,
        "held_out_cases": int(cubes.held_out.sum()),
        "pool_cases": int((~cubes.held_out).sum()),
        "primary_region": PRIMARY_REGION,
        "training_noise": noise,
        "alpha": ALPHA,
        "power": POWER,
        "relevant_change": RELEVANT_CHANGE,
        "min_held_out": MIN_HELD_OUT,
    }


def _contrasts(cubes: _Changes, resamples: int, seed: int) -> dict[str, Any]:
    """`worst_cluster` minus each other chosen arm: held-out cases, primary region.

    Says whether clustering adds to a ranking of rows, and the matrix to one model's
    Dice.
    """
    if HEADLINE_ARM not in cubes.arms or PRIMARY_REGION not in cubes.regions:
        return {}
    held_out = cubes.changes[cubes.regions.index(PRIMARY_REGION)][:, :, cubes.held_out]
    noise = gather(cubes.arms, held_out)[0].noise
    worst = held_out[cubes.arms.index(HEADLINE_ARM)]
    contrasts = {}
    for changes, arm in zip(held_out, cubes.arms, strict=True):
        if is_random(arm) or arm == HEADLINE_ARM:
            continue
        difference = worst - changes
        by_case = case_means(difference)
        low = high = math.nan
        if noise is not None and by_case.size > 1:
            low, high = change_interval(
                _mean(by_case), _sd(by_case), by_case.size, noise, len(cubes.seeds)
            )
        contrasts[arm] = describe(difference, resamples, seed) | {
            "interval_low": low,
            "interval_high": high,
        }
    return contrasts


# --- Planted defects ------------------------------------------------------------------


def expected_in_top(suspicion: Array, marked: Mask, k: int) -> float:
    """How many marked cases the k most suspicious hold, if ties are broken at
    random."""
    if k == 0:
        return 0.0
    limit = np.sort(suspicion)[::-1][min(k, suspicion.size) - 1]
    above, tied = suspicion > limit, suspicion == limit
    share = (min(k, suspicion.size) - above.sum()) / tied.sum()
    return float((above & marked).sum() + share * (tied & marked).sum())


def suspicion_scores(
    clusters: pd.DataFrame,
    donor_effect: pd.Series,
    base_dice: pd.Series,
    label_quality: Mapping[str, float],
) -> dict[str, pd.Series]:
    """The scores that are compared as detectors, each by case id, low is suspect.

    Args:
        clusters: from `clustering.read_clusters`.
        donor_effect: row effect of each train case (`clustering.case_effects`).
        base_dice: the base model's Dice on each case, which it was trained on.
        label_quality: cleanlab's score of each train case; empty where it was not
            asked for.

    Returns:
        `cluster` (0 in the worst cluster, 1 outside), `row_mean`, `row_max`,
        `donor_effect`, `base_dice` and, unless empty, `cleanlab`.
    """
    rows = clusters.set_index("case")
    scores = {
        "cluster": 1.0 - rows["worst"].astype(float),
        "row_mean": rows["row_mean"],
        "row_max": rows["row_max"],
        "donor_effect": donor_effect,
        "base_dice": base_dice,
    }
    if label_quality:
        scores["cleanlab"] = pd.Series(dict(label_quality), dtype=float)
    return scores


def detection(
    cohort: pd.DataFrame, scores: Mapping[str, pd.Series], k: int | None = None
) -> pd.DataFrame:
    """How well scores of the train cases find the planted defects: `detection.tsv`.

    Label defects and image defects are judged apart: while one kind is looked for,
    cases of the other kind are left out, for finding them is neither right nor wrong.
    Unusual but right cases (controls) count as sound.

    Args:
        cohort: `cohort.tsv`, with columns `case`, `train_case` and `planted`.
        scores: name to score by case id; a *low* score makes a case suspect. Cases
            without a score count as the least suspect.
        k: how many cases are reviewed; by default as many as there are defects.

    Returns:
        A row for each score and kind that was planted: `score`, `defect` (label or
        image), `n_cases`, `n_defects`, `n_controls`, `n_unscored`, `auroc`,
        `average_precision`, `prevalence` (the average precision of a random order),
        `k`, `precision_at_k`, `recall_at_k`, `controls_in_top_k`, and `controls_above`:
        controls that are more suspect than the least suspect defect.

    Raises:
        UserError: an unknown name in the column `planted`.
    """
    train = cohort[cohort["train_case"].astype(str).str.lower() == "true"]
    planted = train.set_index("case")["planted"].fillna("").astype(str)
    known = {"", *LABEL_DEFECTS, *IMAGE_DEFECTS, *CONTROLS}
    if unknown := sorted(set(planted) - known):
        raise UserError(
            f"Unknown defects in results/cohort.tsv: {', '.join(unknown)}. Known ones: "
            f"{', '.join([*LABEL_DEFECTS, *IMAGE_DEFECTS, *CONTROLS])}."
        )
    rows = []
    for defect, names in (("label", LABEL_DEFECTS), ("image", IMAGE_DEFECTS)):
        if not planted.isin(names).any():
            continue
        cases = planted[planted.isin(["", *names, *CONTROLS])].sort_index()
        is_defect = cases.isin(names).to_numpy(dtype=bool)
        is_control = cases.isin(CONTROLS).to_numpy(dtype=bool)
        reviewed = min(k or int(is_defect.sum()), len(cases))
        for name, values in scores.items():
            score = values.astype(float).reindex(cases.index).to_numpy()
            unscored = np.isnan(score)
            suspicion = -np.where(unscored, np.inf, score)
            found = expected_in_top(suspicion, is_defect, reviewed)
            # Ranks, because scikit-learn takes no infinite scores.
            ranks = stats.rankdata(suspicion)
            auroc, precision = math.nan, 1.0
            if not is_defect.all():
                auroc = float(metrics.roc_auc_score(is_defect, ranks))
                precision = float(metrics.average_precision_score(is_defect, ranks))
            rows.append(
                {
                    "score": name,
                    "defect": defect,
                    "n_cases": len(cases),
                    "n_defects": int(is_defect.sum()),
                    "n_controls": int(is_control.sum()),
                    "n_unscored": int(unscored.sum()),
                    "auroc": auroc,
                    "average_precision": precision,
                    "prevalence": float(is_defect.mean()),
                    "k": reviewed,
                    "precision_at_k": found / reviewed,
                    "recall_at_k": found / int(is_defect.sum()),
                    "controls_in_top_k": expected_in_top(
                        suspicion, is_control, reviewed
                    ),
                    "controls_above": int(
                        (is_control & (suspicion > suspicion[is_defect].min())).sum()
                    ),
                }
            )
    return pd.DataFrame(rows)
