"""The adaptive segmentation against everything that is cheaper, on held-out cases.

Changes are differences of Dice on the same case; statistics and verdict are those of
the pruning (`pruning.statistics`, `pruning.noise`, `pruning.verdict`; docs/method.md).
Random ensembles of as many models take the place of the random arms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from casesim.adaptive.baselines import ADAPTIVE, RANDOM
from casesim.adaptive.table import BASE
from casesim.pruning.noise import TrainingNoise, against_random, change_interval
from casesim.pruning.statistics import (
    RESAMPLES,
    bootstrap_interval,
    case_means,
    describe,
    mean_or_nan,
    once_a_patient,
    sd_or_nan,
)
from casesim.pruning.verdict import Controls, Evidence, verdict

Array = npt.NDArray[np.float64]

ORACLE = "oracle"
# What is put to the test, most important first; all others are what it has to beat.
TARGETS = (ADAPTIVE, "pick", "finetuned_for_case")
COLUMNS = ("method", "seed", "case", "region", "dice")
_ENSEMBLES = Controls(
    "random ensemble",
    "random ensembles",
    "nothing was trained with more than one seed (adaptive.seeds)",
)


def by_patient(
    table: pd.DataFrame, patients: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """`COLUMNS` with the mean over each patient's scans in their place; `patients` as
    in `matrix.own_cells`."""
    return once_a_patient(table, patients or {}, ["dice"])


def changes(
    table: pd.DataFrame, target: str, reference: str
) -> tuple[Array, list[str], int, int]:
    """Dice of the target minus that of the reference, case by case.

    A method that was trained once is compared with each training of the other.

    Args:
        table: `COLUMNS`, one region.

    Returns:
        (seed, case), NaN where one of the two is undefined; the cases, which both
        segmented; and how often target and reference were trained.
    """
    wide = [
        table[table["method"] == name].pivot(
            index="seed", columns="case", values="dice"
        )
        for name in (target, reference)
    ]
    cases = sorted(set(wide[0].columns) & set(wide[1].columns))
    one, other = (part[cases].to_numpy(dtype=float) for part in wide)
    if len(one) > 1 and len(other) > 1 and len(one) != len(other):
        one, other = (part.mean(axis=0, keepdims=True) for part in (one, other))
    return one - other, cases, len(wide[0]), len(wide[1])


def training_noise(table: pd.DataFrame) -> TrainingNoise | None:
    """How much the mean Dice of one training differs from another of the same kind.

    From the methods that were trained with several seeds: the standard deviation of
    their mean Dice over cases between seeds, pooled over methods. Where the base was
    trained with several seeds, all that starts from it shares its luck, which is not
    between two methods of one seed: what neither method nor seed explains is left (as
    in `pruning.noise.training_noise`). What is drawn anew for each seed (random
    ensembles) or needs the labels (the oracle) has no part in it.

    Args:
        table: `COLUMNS`, one region.

    Returns:
        None where no method was trained twice.
    """
    means: dict[str, pd.Series] = {}
    for method, rows in table.groupby("method"):
        wide = rows.pivot(index="seed", columns="case", values="dice").dropna(axis=1)
        drawn = is_random(str(method)) or method == ORACLE
        if len(wide) > 1 and wide.shape[1] > 0 and not drawn:
            means[str(method)] = wide.mean(axis=1)
    squares, df = 0.0, 0
    seeds = means[BASE].index if BASE in means else pd.Index([])
    paired = [m for m, values in means.items() if values.index.equals(seeds)]
    if len(paired) > 1:
        both = np.array([means.pop(method).to_numpy(dtype=float) for method in paired])
        of_seed = both.mean(axis=0)
        of_method = both.mean(axis=1, keepdims=True)
        squares += float(((both - of_seed - of_method + both.mean()) ** 2).sum())
        df += (len(paired) - 1) * (len(seeds) - 1)
    for values in means.values():
        squares += float(((values - values.mean()) ** 2).sum())
        df += len(values) - 1
    return TrainingNoise(math.sqrt(squares / df), df, "seeds") if df else None


def contrast(
    table: pd.DataFrame,
    target: str,
    reference: str,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """One target against one reference, one region.

    The variance of the interval is s² / S of each of the two, S being how often each
    was trained, plus that of the cases. Methods that share their models (all ensembles
    of the same fine-tunes) share most of that noise, so for them it is too wide;
    `ci_low` and `ci_high` take the models as given. Where both were trained with the
    same seeds, `paired_low` and `paired_high` take the noise from the spread of their
    own differences between seeds (`paired_interval`).

    Args:
        table: `COLUMNS`, one region, all methods.
        target, reference: names of methods.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Returns:
        `describe`'s statistics, `interval_low`, `interval_high`, `paired_low`,
        `paired_high`, `training_sd`, `seeds` (of target and reference), `verdict`,
        `sentence`.
    """
    found, _, n_target, n_reference = changes(table, target, reference)
    noise = training_noise(table)
    evidence = _evidence(table, target, reference, found, noise, n_target, n_reference)
    decision = verdict(evidence)
    low, high = evidence.interval
    paired = n_target == n_reference == len(found)
    paired_low, paired_high = paired_interval(found if paired else found[:1])
    return describe(found, resamples, seed) | {
        "interval_low": low,
        "interval_high": high,
        "paired_low": paired_low,
        "paired_high": paired_high,
        "training_sd": noise.sd if noise else math.nan,
        "seeds": [n_target, n_reference],
        "verdict": decision.word,
        "sentence": f"Against {reference}: {decision.sentence}",
    }


def paired_interval(found: Array) -> tuple[float, float]:
    """95 % interval of a mean change, for other cases and other trainings, from the
    changes themselves.

    The mean change of each seed is one draw: their variance over S, with S - 1 degrees
    of freedom, and that of the cases (`pruning.noise.change_interval`). It asks for no
    equal noise of all methods, and has few degrees of freedom.

    Args:
        found: changes (seed, case), from `changes`.

    Returns:
        NaN with fewer than two seeds or cases.
    """
    by_case = case_means(found)
    if len(found) < 2 or by_case.size < 2:
        return math.nan, math.nan
    by_seed = np.array([mean_or_nan(row[~np.isnan(row)]) for row in found])
    # Of two trainings, half the variance of their difference each.
    noise = TrainingNoise(sd_or_nan(by_seed) / math.sqrt(2), len(found) - 1, "seeds")
    return change_interval(
        mean_or_nan(by_case), sd_or_nan(by_case), by_case.size, noise, len(found)
    )


def _evidence(
    table: pd.DataFrame,
    target: str,
    reference: str,
    found: Array,
    noise: TrainingNoise | None,
    n_target: int,
    n_reference: int,
) -> Evidence:
    by_case = case_means(found)
    n_seeds = len(found)
    if noise is not None:
        # `change_interval` takes both sides to be trained once for each seed.
        both = 1 / n_target + 1 / n_reference
        noise = replace(noise, sd=noise.sd * math.sqrt(both * n_seeds / 2))
    others = [name for name in random_methods(table) if name != reference]
    randoms = np.array(
        [mean_or_nan(case_means(changes(table, name, reference)[0])) for name in others]
    )
    mean = mean_or_nan(by_case)
    beside = None
    if by_case.size and randoms.size:
        beside = against_random(mean, randoms)
    return Evidence(
        arm=target,
        n=by_case.size,
        mean=mean,
        case_sd=sd_or_nan(by_case),
        mean_by_seed=[mean_or_nan(row[~np.isnan(row)]) for row in found],
        noise=noise,
        n_randoms=randoms.size,
        random_sd=sd_or_nan(randoms),
        random=beside,
        controls=_ENSEMBLES,
    )


def is_random(method: str) -> bool:
    return method.startswith(RANDOM)


def random_methods(table: pd.DataFrame) -> list[str]:
    """The random ensembles among the methods."""
    return sorted({str(m) for m in table["method"] if is_random(str(m))})


def methods(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Each method on held-out cases, one region: `validation.tsv`.

    Args:
        table: `COLUMNS`, one region.
        seed: of the resampling.

    Returns:
        `method`, `seeds`, `n` (cases with a defined Dice), `mean` Dice, `change`
        against the base with its 95 % interval over cases (`ci_low`, `ci_high`), and
        `gap_closed`: the share of the way from the base to the oracle, on the method's
        cases. Ordered by the change: a method that segmented some of the cases only
        has a mean of its own.
    """
    rows = []
    for method, of_method in table.groupby("method"):
        found, _, n_seeds, _ = changes(table, str(method), BASE)
        change = mean_or_nan(case_means(found))
        low, high = bootstrap_interval(found, seed=seed)
        by_case = of_method.groupby("case")["dice"].mean()
        to_oracle = _to_oracle(table[table["case"].isin(by_case.dropna().index)])
        rows.append(
            {
                "method": method,
                "seeds": n_seeds,
                "n": int(by_case.notna().sum()),
                "mean": float(by_case.mean()),
                "change": change,
                "ci_low": low if method != BASE else 0.0,
                "ci_high": high if method != BASE else 0.0,
                "gap_closed": change / to_oracle if to_oracle > 0 else math.nan,
            }
        )
    found_table = pd.DataFrame(rows)
    order = ["change", "method"]
    return found_table.sort_values(order, ascending=[False, True], ignore_index=True)


def _to_oracle(table: pd.DataFrame) -> float:
    """Mean change from the base to the oracle; NaN without an oracle."""
    if ORACLE not in set(table["method"]):
        return math.nan
    return mean_or_nan(case_means(changes(table, ORACLE, BASE)[0]))


def contrasts(table: pd.DataFrame, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Each target against every other method, one region: target to reference to
    `contrast`."""
    names = sorted(set(table["method"]))
    return {
        target: {
            reference: contrast(table, target, reference, seed=seed)
            for reference in names
            if reference != target and reference not in TARGETS
        }
        for target in TARGETS
        if target in names
    }
