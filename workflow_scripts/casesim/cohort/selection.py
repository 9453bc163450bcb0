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
    """Case ids by role; `train` are among `pool`, the other roles share no patient."""

    pool: tuple[str, ...]
    train: tuple[str, ...]
    held_out: tuple[str, ...]
    calibration: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


# The roles that must not share a case, nor a patient; as they are called in messages.
ROLES = {
    "pool": "pool cases",
    "held_out": "held-out cases",
    "calibration": "calibration cases",
}


def rank(
    ids: Iterable[str], seed: int | None, patients: Mapping[str, str] | None = None
) -> list[str]:
    """Order ids by a hash of seed and patient: random, but blind to the order of files.

    A case that `patients` does not name is a patient of its own. Cases of one patient
    follow each other, by a hash of their own. With `seed` None ids stay in the order
    given.
    """
    if seed is None:
        return list(ids)
    patient_of = patients or {}

    def drawn(name: str) -> bytes:
        return hashlib.sha256(f"{seed}:{name}".encode()).digest()

    return sorted(ids, key=lambda i: (drawn(patient_of.get(i, i)), drawn(i)))


def choose_refits(
    train: Iterable[str],
    refits: int | Sequence[str],
    seed: int,
    patients: Mapping[str, str] | None = None,
) -> list[str]:
    """The train cases that are fine-tuned a second time, sorted.

    A number takes so many from the front of `rank`: at random, blind to every result,
    and a larger number contains the smaller one's cases.

    Raises:
        UserError: a case in the list is no train case.
    """
    if isinstance(refits, int):
        return sorted(rank(train, seed, patients)[:refits])
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
    calibration: int | Sequence[str] = 0,
    patients: Mapping[str, str] | None = None,
) -> Selection:
    """Choose the cases of each role, by number or by explicit list.

    Numbers take the pool from the front of `rank` and the held-out cases from its end,
    then the calibration cases from the end of what is left, and the train cases from
    the front of the pool: a larger number always contains the smaller one's cases. A
    patient of whom some case has one of these roles gives no case to another; a case
    that `patients` does not name is a patient of its own. `excluded` are ids that exist
    but cannot be used; lists may name them, and they are left out.

    Too few cases, and ids named twice, give a problem and what is left. Raises
    UserError for ids that exist nowhere, for a case or patient in two roles, and for
    train cases outside the pool.
    """
    wishes = {"pool": pool, "held_out": held_out, "calibration": calibration}
    everything = {**wishes, "train_cases": train_cases}
    listed = {
        key: list(dict.fromkeys(map(str, wish)))
        for key, wish in everything.items()
        if not isinstance(wish, int)
    }
    _refuse_unknown(listed, {*ids, *excluded})
    problems = _named_twice(everything)
    ranked = rank(ids, seed, patients)
    patient_of = {i: (patients or {}).get(i, i) for i in (*ids, *excluded)}
    _refuse_split_patients(
        {key: listed[key] for key in wishes if key in listed}, patient_of
    )

    chosen: dict[str, list[str]] = {
        key: [i for i in listed[key] if i in set(ranked)]
        for key in wishes
        if key in listed
    }
    for key, wish in wishes.items():
        if not isinstance(wish, int):
            continue
        taken = {patient_of[i] for role in chosen.values() for i in role}
        free = [i for i in ranked if patient_of[i] not in taken]
        first = 0 if key == "pool" else max(0, len(free) - wish)
        chosen[key] = free[first : first + wish]
    if too_few := _too_few(wishes, chosen, len(ranked)):
        problems.append(too_few)
    return Selection(
        tuple(chosen["pool"]),
        tuple(_choose_train(train_cases, pool, chosen["pool"], ranked, excluded)),
        tuple(chosen["held_out"]),
        tuple(chosen["calibration"]),
        tuple(problems),
    )


def _choose_train(
    train_cases: int | Sequence[str],
    pool: int | Sequence[str],
    chosen_pool: Sequence[str],
    ranked: Sequence[str],
    excluded: Collection[str],
) -> list[str]:
    in_pool = set(chosen_pool)
    if isinstance(train_cases, int):
        wanted_pool = pool if isinstance(pool, int) else len(set(pool))
        if train_cases > wanted_pool:
            raise UserError(
                f"cohort.train_cases is {train_cases}, but cohort.pool only "
                f"{wanted_pool}: train cases are pool cases. Lower cohort.train_cases "
                "or raise cohort.pool."
            )
        return [i for i in ranked if i in in_pool][:train_cases]
    allowed = in_pool if isinstance(pool, int) else {*map(str, pool)}
    named = list(dict.fromkeys(map(str, train_cases)))
    if outside := sorted({*named} - allowed - {*excluded}):
        raise UserError(
            f"In cohort.train_cases, but not in the pool: {', '.join(outside)}. "
            "Train cases are pool cases: name them in cohort.pool too."
        )
    return [i for i in named if i in in_pool]


def _named_twice(wishes: Mapping[str, int | Sequence[str]]) -> list[Problem]:
    return [
        Problem(
            case,
            "error",
            f"cohort.{key} names the case {times} times",
            "Name it once.",
        )
        for key, wish in wishes.items()
        if not isinstance(wish, int)
        for case, times in Counter(map(str, wish)).items()
        if times > 1
    ]


def _too_few(
    wishes: Mapping[str, int | Sequence[str]],
    chosen: Mapping[str, Sequence[str]],
    usable: int,
) -> Problem | None:
    short = [
        f"{wish} {ROLES[key]} (cohort.{key})"
        for key, wish in wishes.items()
        if isinstance(wish, int) and len(chosen[key]) < wish
    ]
    if not short:
        return None
    enough = f"{len(chosen['pool'])} in the pool and {len(chosen['held_out'])} held out"
    if wishes["calibration"]:
        enough += f" and {len(chosen['calibration'])} for calibration"
    return Problem(
        WHOLE_COHORT,
        "error",
        f"Too few cases for {' and '.join(short)}: there are {usable} usable ones, "
        f"enough for {enough}.",
        "Lower these numbers, or add cases (of further patients, if some have several: "
        "a patient's cases all go to one role).",
    )


def _refuse_split_patients(
    listed: Mapping[str, Sequence[str]], patient_of: Mapping[str, str]
) -> None:
    """Raise UserError if two lists share a case or a patient."""
    keys = list(listed)
    for i, one in enumerate(keys):
        for other in keys[i + 1 :]:
            if both := sorted({*listed[one]} & {*listed[other]}):
                raise UserError(
                    f"In cohort.{one} and in cohort.{other}: {', '.join(both)}. "
                    + (
                        "A held-out case must not be trained on: name each case in one "
                        "list only."
                        if other == "held_out"
                        else "Name each case in one list only."
                    )
                )
            sides = [
                {patient_of[case]: case for case in listed[key]} for key in (one, other)
            ]
            split = [
                f"{sides[0][patient]} and {sides[1][patient]} are of {patient}"
                for patient in sorted(sides[0].keys() & sides[1].keys())
            ]
            if split:
                raise UserError(
                    f"cohort.{one} and cohort.{other} share patients: "
                    f"{'; '.join(split[:10])}. Two scans of one patient look alike, so "
                    "one must not be trained on and the other judge: name all cases of "
                    "a patient in one list (cohort.patient says who is who)."
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
