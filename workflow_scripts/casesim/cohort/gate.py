"""A cohort is checked once as it is, by whichever job comes first.

No job may need the check as an input: then a case more, or a corrected label of one
that nothing is trained on, would do everything again. So the check is a rule of its own
that runs first, and the jobs from which all training follows ask here whether it has
passed. If it has not been made for these very files, they make it themselves.
"""

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from casesim.cohort.cases import Cohort
from casesim.cohort.fingerprints import Fingerprints
from casesim.cohort.problem import Problem
from casesim.errors import UserError
from casesim.files import atomic_path

# Beside the table of problems; what the last check found, and in which files.
_STATE = ".checks.json"
_LOCK = ".checks.lock"
# What the rules of checking are: a new rule is tried on old files, too.
_VERSION = 1


def check_once(
    cohort: Cohort,
    fingerprints: Fingerprints,
    results: Path,
    threads: int,
    memory: float = math.inf,
) -> list[Problem]:
    """All problems of a cohort; what is known of the same files is not found out anew.

    `results` is the folder where the outcome is kept, `threads` and `memory` are those
    of `across_cases.check_cohort`. Other jobs that ask for the same
    meanwhile wait for it, where folders can be locked.
    """
    results.mkdir(parents=True, exist_ok=True)
    state, key = results / _STATE, _key(cohort, fingerprints)
    with _alone(results / _LOCK):
        known = _read(state, key)
        if known is not None:
            return known
        from casesim.cohort.checks import across_cases

        problems = across_cases.check_cohort(cohort, threads, memory)
        content = {"key": key, "problems": [asdict(problem) for problem in problems]}
        with atomic_path(state) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")
        return problems


def refuse_errors(problems: Sequence[Problem], table: str) -> None:
    """Raise `UserError` if a problem is an error; `table` is where all are listed."""
    errors = sum(problem.severity == "error" for problem in problems)
    if errors:
        raise UserError(
            f"The cohort has {errors} error(s), listed in {table} and by the rule "
            "check_cohort. Nothing is trained until they are mended."
        )


def _key(cohort: Cohort, fingerprints: Fingerprints) -> str:
    """All that the check looks at, in one number."""
    content = {
        "version": _VERSION,
        "cases": [case.as_record() for case in cohort.cases],
        "files": [fingerprints.of(case.existing_sources) for case in cohort.cases],
        "channels": cohort.channel_names,
        "labels": cohort.labels,
        "label_map": [list(pair) for pair in cohort.label_map.items()],
        "problems": [asdict(problem) for problem in cohort.problems],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read(state: Path, key: str) -> list[Problem] | None:
    try:
        content = json.loads(state.read_text(encoding="utf-8"))
        if content["key"] != key:
            return None
        return [Problem(**problem) for problem in content["problems"]]
    except (OSError, ValueError, TypeError, KeyError):
        return None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep others of this cohort out; where nothing can be locked, check twice."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("Waiting for another job that checks the cohort.", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
