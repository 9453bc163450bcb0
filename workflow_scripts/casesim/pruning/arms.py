"""Arms: which train cases each retrained model does without.

An arm is one way to choose removals. Every arm removes as many cases as the worst
cluster holds, since a model trained on fewer cases is another experiment; `reviewed`,
which removes what a reviewer decides, has random arms of its own size beside it. The
arm `relabelled` removes nothing: it is trained on corrected label maps. All arms draw
from the train cases, the only ones that the similarity matrix says anything about.
Standard library only: Snakemake imports this module whenever it parses the workflow.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from casesim.errors import UserError

FULL = "full"
RANDOM = "random_"
REVIEWED = "reviewed"
RELABELLED = "relabelled"
RANDOM_REVIEWED = f"{RANDOM}{REVIEWED}_"


class Retrained(TypedDict):
    """What sets one retrained model apart: the arm it belongs to and its seed."""

    arm: str
    seed: int


def arms(
    pruning: Mapping[str, Any], reviewed: bool = False, relabelled: bool = False
) -> list[str]:
    """Names of all arms that are compared with the full set.

    Args:
        pruning: the config's section `pruning` (`arms`, `random_arms`, `seeds`).
        reviewed: whether a reviewer removes cases.
        relabelled: whether there are corrected label maps.
    """
    numbers = range(1, pruning["random_arms"] + 1)
    return [
        *pruning["arms"],
        *([REVIEWED] if reviewed else []),
        *([RELABELLED] if relabelled else []),
        *(f"{RANDOM}{r}" for r in numbers),
        *(f"{RANDOM_REVIEWED}{r}" for r in numbers if reviewed),
    ]


def is_random(arm: str) -> bool:
    """Whether the arm is a random control."""
    return arm.startswith(RANDOM)


def is_control_of(control: str, arm: str) -> bool:
    """Whether a random arm removes as many cases as this arm does.

    Those of the worst cluster's size stand in for `relabelled`, too, where only the
    training noise is asked for: it removes none.
    """
    of_reviewed = control.startswith(RANDOM_REVIEWED)
    wanted = arm == REVIEWED or arm.startswith(RANDOM_REVIEWED)
    return is_random(control) and of_reviewed == wanted


def full_model(seed: int, base_seed: int | None) -> str:
    """Name of the model of the full pool with this training seed.

    `base_seed` is that of the base model; None where that was trained elsewhere, and
    cannot be compared with retrained models.
    """
    return "base" if seed == base_seed else f"{FULL}-seed{seed}"


def retrained_models(
    pruning: Mapping[str, Any],
    base_seed: int | None,
    reviewed: bool = False,
    relabelled: bool = False,
) -> dict[str, Retrained]:
    """Every model that is retrained, with its arm and training seed.

    A model has the name of its arm, and `-seed<S>` behind it where its seed is not the
    base model's. Each seed needs a model of the full pool to be compared with: for the
    base seed that is `base` itself, for any other one the model `full-seed<S>`.

    Args:
        pruning: the config's section `pruning` (`arms`, `random_arms`, `seeds`).
        base_seed: the seed that the base model is trained with, None for one that was
            trained elsewhere.
        reviewed: whether a reviewer removes cases.
        relabelled: whether there are corrected label maps.

    Returns:
        Model name to arm and seed; empty when no arm is configured.
    """
    models: dict[str, Retrained] = {}
    names = arms(pruning, reviewed, relabelled)
    if not names:
        return models
    for seed in dict.fromkeys(pruning["seeds"]):
        suffix = ""
        if seed != base_seed:
            suffix = f"-seed{seed}"
            models[full_model(seed, base_seed)] = {"arm": FULL, "seed": seed}
        models |= {f"{arm}{suffix}": {"arm": arm, "seed": seed} for arm in names}
    return models


def choose(
    arm: str,
    pool: Iterable[str],
    clusters: Iterable[Mapping[str, Any]],
    base_dice: Mapping[str, float],
    seed: int,
    reviewed: Sequence[str] = (),
) -> list[str]:
    """The cases that an arm removes from the pool, sorted.

    With n the size of the worst cluster:

    * `worst_cluster`: the cluster marked as worst.
    * `best_cluster`: n cases of the cluster with the highest mean row Dice. The lowest
      rows of a larger cluster stay, a smaller one is filled up with the highest rows
      elsewhere.
    * `lowest_rows`: the n cases with the lowest row means, whatever their cluster.
    * `lowest_base_dice`: the n train cases that the base model segments worst.
    * `random_<r>`: n train cases drawn at random. Arms differ from one another and from
      the worst cluster as long as there are other sets of n to draw.
    * `reviewed`: the cases that a reviewer removes, however many.
    * `random_reviewed_<r>`: as many as these, drawn like `random_<r>`.
    * `relabelled`, `full`: none.

    Ties are broken by case id, cases with an undefined value come last, and the order
    of the arguments does not matter.

    Args:
        arm: name of the arm.
        pool: ids of all pool cases.
        clusters: rows of `clusters.tsv`: `case`, `cluster`, `row_mean`, `worst`.
        base_dice: mean Dice of the base model on each case.
        seed: for the random arms.
        reviewed: the train cases that a reviewer removes.

    Raises:
        UserError: unknown arm, no worst cluster, cases outside the pool, or too few
            cases.
    """
    if arm in (FULL, RELABELLED):
        return []
    rows = {row["case"]: row for row in clusters}
    train = sorted(rows)
    if strangers := sorted(set(train) - set(pool)):
        raise UserError(
            f"The clusters hold cases that are not in the pool: "
            f"{', '.join(strangers)}. Delete results/similarity/clusters.tsv to have "
            "the clusters made again."
        )
    worst = [case for case in train if _is_true(rows[case]["worst"])]
    number = len(worst)
    row_means = {case: _number(rows[case]["row_mean"]) for case in train}
    if number == 0 and len({str(rows[case]["cluster"]) for case in train}) == 1:
        raise UserError(_all_alike(row_means))
    if not 0 < number < len(train):
        raise UserError(
            f"The worst cluster holds {number} of {len(train)} train cases, so there "
            "is nothing to compare. Change `clusters` in the config: a fixed `number`, "
            "a smaller `min_size`, or another `max_removed_share`."
        )
    if arm == "worst_cluster":
        removed = worst
    elif arm == "best_cluster":
        removed = _best_cluster(rows, row_means, number)
    elif arm == "lowest_rows":
        removed = _lowest(row_means, number)
    elif arm == "lowest_base_dice":
        dice = {case: _number(base_dice.get(case)) for case in train}
        removed = _lowest(dice, number)
    elif arm == REVIEWED:
        removed = list(reviewed)
    elif arm.removeprefix(RANDOM_REVIEWED).isdecimal():
        number = int(arm.removeprefix(RANDOM_REVIEWED))
        removed = _draw(number, train, sorted(reviewed), f"{seed}/{REVIEWED}")
    elif is_random(arm) and arm.removeprefix(RANDOM).isdecimal():
        removed = _draw(int(arm.removeprefix(RANDOM)), train, worst, seed)
    else:
        raise UserError(
            f"Unknown arm {arm!r}. Known arms: worst_cluster, best_cluster, "
            "lowest_rows, lowest_base_dice (config: `pruning.arms`)."
        )
    return sorted(removed)


def _all_alike(row_means: Mapping[str, float]) -> str:
    """Why no cluster is the worst where all train cases are in one."""
    defined = [mean for mean in row_means.values() if not math.isnan(mean)]
    start = "There is no worst cluster, so nothing can be removed and compared: "
    if not any(defined):
        what = "undefined" if not defined else "0 or undefined"
        return (
            f"{start}every Dice is {what}. Either no case has what similarity.region "
            "names (results/checks.tsv tells of labels in no case): choose another "
            "similarity.region, or mean. Or no model finds it: train longer, in "
            "training.base first."
        )
    return (
        f"{start}all rows of the matrix are equal. The fine-tuned models do not "
        "differ, since they learnt nothing: raise training.finetune's initial_lr, "
        "epochs or iterations_per_epoch. results/similarity/heatmap.png shows the rows."
    )


def _lowest(values: Mapping[str, float], number: int) -> list[str]:
    """The cases with the lowest values; undefined ones come last."""
    order = sorted(values, key=lambda c: (math.isnan(values[c]), values[c], c))
    return order[:number]


def _highest(values: Mapping[str, float], number: int) -> list[str]:
    """The cases with the highest values; undefined ones come last."""
    return _lowest({case: -value for case, value in values.items()}, number)


def _best_cluster(
    rows: Mapping[str, Mapping[str, Any]],
    row_means: Mapping[str, float],
    number: int,
) -> list[str]:
    members: dict[str, list[str]] = {}
    for case in sorted(rows):
        members.setdefault(str(rows[case]["cluster"]), []).append(case)
    level = {}
    for cluster, cases in members.items():
        defined = [row_means[c] for c in cases if not math.isnan(row_means[c])]
        level[cluster] = sum(defined) / len(defined) if defined else math.nan
    best = members[_highest(level, 1)[0]]
    removed = _highest({case: row_means[case] for case in best}, number)
    others = {case: mean for case, mean in row_means.items() if case not in best}
    return removed + _highest(others, number - len(removed))


def _draw(
    r: int, train: Sequence[str], chosen: Sequence[str], seed: int | str
) -> list[str]:
    """The r-th random set of the chosen one's size: each is redrawn until it is one
    that was not used before, the chosen one included."""
    subsets = math.comb(len(train), len(chosen))
    used = {tuple(chosen)}
    removed: tuple[str, ...] = ()
    for q in range(1, r + 1):
        # A string seeds through SHA-512: the same draw on every machine and version.
        generator = random.Random(f"{seed}/{q}")
        if len(used) == subsets:
            used.clear()
        removed = tuple(sorted(generator.sample(train, len(chosen))))
        while removed in used:
            removed = tuple(sorted(generator.sample(train, len(chosen))))
        used.add(removed)
    return list(removed)


def _is_true(value: object) -> bool:
    return str(value).strip().lower() == "true"


def _number(value: object) -> float:
    """A float; NaN for what a table leaves empty."""
    text = "" if value is None else str(value).strip()
    return float(text) if text else math.nan
