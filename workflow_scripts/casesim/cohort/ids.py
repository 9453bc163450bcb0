"""Which case ids can be parts of file names, and are there once."""

import re
from collections import defaultdict
from collections.abc import Iterable

from casesim.cohort.problem import Problem
from casesim.cohort.sources.found import Candidate

MAX_ID_LENGTH = 100
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def screen(candidates: Iterable[Candidate]) -> tuple[list[Candidate], list[Problem]]:
    """The candidates with ids of their own that can be parts of paths."""
    alike: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        alike[candidate.id.casefold()].append(candidate)
    usable: list[Candidate] = []
    problems = []
    for group in alike.values():
        if len(group) > 1:
            places = ", ".join(sorted(candidate.place for candidate in group))
            ids = sorted({candidate.id for candidate in group})
            what = "is there" if len(ids) == 1 else "differs from another only by case"
            problems.append(
                Problem(
                    ids[0],
                    "error",
                    f"Duplicate case id: {', '.join(ids)} {what} ({places}).",
                    "Rename or remove all but one; none of them is used.",
                )
            )
            continue
        reason = _unsafe(group[0].id)
        if reason:
            problems.append(
                Problem(
                    group[0].id,
                    "error",
                    f"The case id {reason} ({group[0].place}); ids become file names.",
                    "Rename the case's files; it is not used.",
                )
            )
        else:
            usable += group
    return usable, problems


def _unsafe(case_id: str) -> str:
    """Why the id cannot be part of a path; empty if it can."""
    if len(case_id) > MAX_ID_LENGTH:
        return f"is longer than {MAX_ID_LENGTH} characters"
    if not case_id.isascii():
        return "is not plain ASCII"
    if case_id.startswith((".", "-")):
        return "starts with a dot or a dash"
    if case_id.endswith("_seg"):
        return "ends in _seg, which nnU-Net keeps for label maps"
    if not SAFE_ID.fullmatch(case_id):
        return "has characters other than letters, digits, '.', '_' and '-'"
    return ""
