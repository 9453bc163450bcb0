"""All that a comparison says, arm by arm and region by region: `summary.json`."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from casesim.errors import UserError
from casesim.files import atomic_path
from casesim.pruning.arms import RELABELLED, REVIEWED, is_control_of, is_random
from casesim.pruning.comparison import PRIMARY_REGION, group
from casesim.pruning.noise import POWER, change_interval, detectable_by_cases
from casesim.pruning.statistics import (
    ALPHA,
    RESAMPLES,
    case_means,
    describe,
    holm,
    mean_or_nan,
    once_a_patient,
    sd_or_nan,
)
from casesim.pruning.verdict import (
    MIN_HELD_OUT,
    RELEVANT_CHANGE,
    Evidence,
    gather,
    verdict,
)

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

HEADLINE_ARM = "worst_cluster"
GROUPS = ("held_out", "kept", "removed")


def summary(
    table: pd.DataFrame,
    resamples: int = RESAMPLES,
    seed: int = 0,
    patients: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Everything that the comparison says: `summary.json`.

    Args:
        table: from `comparison`.
        resamples: number of bootstrap samples.
        seed: of the resampling.
        patients: of held-out cases that are not alone, as in `matrix.own_cells`: a
            patient counts once, as one held-out case.

    Returns:
        `verdict` (the sentence on `worst_cluster`, None without that arm), `design`
        (what was compared, and the constants of the rules), `arms`, and `contrasts`
        (`worst_cluster` minus each other chosen arm, held-out cases, primary region).
        Each arm has its removed cases (`relabelled` its `corrected_cases`), `verdict`
        and `sentence` (not the random arms), and for each region the groups
        `held_out`, `kept` and `removed` as `describe` gives them. Held-out groups also
        have `mean_by_seed`, `seed_sd`, `interval_low` and `interval_high` (training
        noise included), `detectable`, `detectable_by_cases`, and, for chosen arms, the
        comparison with the random arms of their size; p values adjusted over regions
        end in `_holm`.

    Raises:
        UserError: a leak, or an arm, seed, case and region without its row.
    """
    cubes = _changes(by_patient(table, patients))
    arms: dict[str, Any] = {}
    for a, arm in enumerate(cubes.arms):
        removed = [cubes.cases[c] for c in np.flatnonzero(cubes.removed[a])]
        arms[arm] = {"removed_cases": removed, "regions": {}}
        if arm == RELABELLED:
            arms[arm] |= {"removed_cases": [], "corrected_cases": removed}
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


def by_patient(
    table: pd.DataFrame, patients: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """The comparison with the mean over each held-out patient's scans in their place.

    Args:
        table: from `comparison`.
        patients: as for `summary`.
    """
    held_out = set(table["case"][group(table) == "held_out"])
    known = {c: patient for c, patient in (patients or {}).items() if c in held_out}
    return once_a_patient(table, known, ["dice_before", "dice_after", "delta"])


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
        "seed_sd": sd_or_nan(np.array(e.mean_by_seed)),
        "training_sd": e.noise.sd if e.noise else math.nan,
        "training_sd_from": e.noise.source if e.noise else None,
        "interval_low": low,
        "interval_high": high,
    }
    if not is_random(e.arm) and e.arm != RELABELLED:
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
    randoms = sum(is_control_of(arm, HEADLINE_ARM) for arm in cubes.arms)
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
        # Arms of another size are another experiment.
        if is_random(arm) or arm in (HEADLINE_ARM, REVIEWED, RELABELLED):
            continue
        difference = worst - changes
        by_case = case_means(difference)
        low = high = math.nan
        if noise is not None and by_case.size > 1:
            low, high = change_interval(
                mean_or_nan(by_case),
                sd_or_nan(by_case),
                by_case.size,
                noise,
                len(cubes.seeds),
            )
        contrasts[arm] = describe(difference, resamples, seed) | {
            "interval_low": low,
            "interval_high": high,
        }
    return contrasts
