"""Which case plays which part: by number, blind to the order of files, or by list."""

import difflib
import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from casesim.cohort.problem import WHOLE_COHORT, Problem
from casesim.errors import UserError


@dataclass(frozen=True)
class Selection:
    """Case ids by role; `train` are among `pool`, which shares none with `held_out`."""

    pool: tuple[str, ...]
    train: tuple[str, ...]
    held_out: tuple[str, ...]
    problems: tuple[Problem, ...] = ()


def rank(ids: Iterable[str], seed: int | None) -> list[str]:
    """Order ids by a hash of seed and id: random, but blind to the order of files.

    With `seed` None they stay in the order given.
    """
    if seed is None:
        return list(ids)
    return sorted(ids, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())


def choose_refits(
    train: Iterable[str], refits: int | Sequence[str], seed: int
) -> list[str]:
    """The train cases that are fine-tuned a second time, sorted.

    A number takes so many from the front of `rank`: at random, blind to every result,
    and a larger number contains the smaller one's cases.

    Raises:
        UserError: a case in the list is no train case.
    """
    if isinstance(refits, int):
        return sorted(rank(train, seed)[:refits])
    if strangers := sorted({*map(str, refits)} - {*train}):
        raise UserError(
            f"In stability.refits, but not among the train cases: "
            f"{', '.join(strangers)}. Only a train case has a fine-tuned model to "
            "compare a refit with: name them in cohort.train_cases too."
        )
    return sorted(map(str, refits))


def select(
    ids: Collection[str],
    pool: int | Sequence[str],
    train_cases: int | Sequence[str],
    held_out: int | Sequence[str],
    seed: int | None,
    excluded: Collection[str] = (),
) -> Selection:
    """Choose pool, train cases and held-out cases, each by number or by explicit list.

    Numbers take the pool from the front of `rank` and the held-out cases from its end,
    and the train cases from the front of the pool: a larger number always contains the
    smaller one's cases. `excluded` are ids that exist but cannot be used; lists may
    name them, and they are left out. Too few cases, and ids named twice, give a problem
    and what is left. Raises UserError for ids that exist nowhere, for a case both in
    pool and held-out, and for train cases outside the pool.
    """
    problems: list[Problem] = []
    wishes = {"pool": pool, "train_cases": train_cases, "held_out": held_out}
    listed = {
        key: list(dict.fromkeys(map(str, wish)))
        for key, wish in wishes.items()
        if not isinstance(wish, int)
    }
    _refuse_unknown(listed, {*ids, *excluded})
    for key in listed:
        wish = wishes[key]
        assert not isinstance(wish, int)
        for case, times in Counter(map(str, wish)).items():
            if times > 1:
                text = f"cohort.{key} names the case {times} times"
                problems.append(Problem(case, "error", text, "Name it once."))

    ranked = rank(ids, seed)
    usable = set(ranked)
    fixed_pool = [i for i in listed.get("pool", []) if i in usable]
    fixed_held_out = [i for i in listed.get("held_out", []) if i in usable]
    both = sorted({*listed.get("pool", [])} & {*listed.get("held_out", [])})
    if both:
        raise UserError(
            f"In cohort.pool and in cohort.held_out: {', '.join(both)}. A held-out "
            "case must not be trained on: name each case in one list only."
        )
    if isinstance(pool, int):
        free = [i for i in ranked if i not in set(fixed_held_out)]
        chosen_pool = free[:pool]
    else:
        chosen_pool = fixed_pool
    if isinstance(held_out, int):
        free = [i for i in ranked if i not in set(chosen_pool)]
        chosen_held_out = free[max(0, len(free) - held_out) :]
    else:
        chosen_held_out = fixed_held_out

    if isinstance(train_cases, int):
        wanted_pool = pool if isinstance(pool, int) else len(listed["pool"])
        if train_cases > wanted_pool:
            raise UserError(
                f"cohort.train_cases is {train_cases}, but cohort.pool only "
                f"{wanted_pool}: train cases are pool cases. Lower cohort.train_cases "
                "or raise cohort.pool."
            )
        in_pool = set(chosen_pool)
        chosen_train = [i for i in ranked if i in in_pool][:train_cases]
    else:
        allowed = chosen_pool if isinstance(pool, int) else listed["pool"]
        outside = sorted(
            {*listed["train_cases"]} - {*allowed} - {*excluded},
        )
        if outside:
            raise UserError(
                f"In cohort.train_cases, but not in the pool: {', '.join(outside)}. "
                "Train cases are pool cases: name them in cohort.pool too."
            )
        chosen_train = [i for i in listed["train_cases"] if i in set(chosen_pool)]

    short = [
        f"{wish} {name} (cohort.{key})"
        for key, name, wish, chosen in (
            ("pool", "pool cases", pool, chosen_pool),
            ("held_out", "held-out cases", held_out, chosen_held_out),
        )
        if isinstance(wish, int) and len(chosen) < wish
    ]
    if short:
        problems.append(
            Problem(
                WHOLE_COHORT,
                "error",
                f"Too few cases for {' and '.join(short)}: there are {len(ranked)} "
                f"usable ones, enough for {len(chosen_pool)} in the pool and "
                f"{len(chosen_held_out)} held out.",
                "Lower these numbers, or add cases.",
            )
        )
    return Selection(
        tuple(chosen_pool),
        tuple(chosen_train),
        tuple(chosen_held_out),
        tuple(problems),
    )


def _refuse_unknown(listed: Mapping[str, Sequence[str]], known: set[str]) -> None:
    lines = []
    for key, names in listed.items():
        for name in names:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=3)
                hint = f" (did you mean {' or '.join(close)}?)" if close else ""
                lines.append(f"  cohort.{key}: {name}{hint}")
    if lines:
        raise UserError(
            "The config names cases that do not exist:\n"
            + "\n".join(lines)
            + f"\nThere are {len(known)} cases, such as {', '.join(sorted(known)[:3])}."
        )
