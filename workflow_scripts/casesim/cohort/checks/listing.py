"""The problems of a cohort as a table and as text for a terminal."""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Sequence

from casesim.cohort.problem import WHOLE_COHORT, Problem
from casesim.files import atomic_path


def write_checks(problems: Iterable[Problem], path: str | os.PathLike[str]) -> None:
    """Write checks.tsv: case, severity, problem, how_to_fix; a bare header if none."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["case", "severity", "problem", "how_to_fix"])
        for found in problems:
            fields = (found.case, found.severity, found.problem, found.how_to_fix)
            writer.writerow([_plain(text) for text in fields])


def format_checks(problems: Sequence[Problem]) -> str:
    """The problems for a terminal, two lines for each, and how many there are."""
    lines = []
    for found in problems:
        case, problem = _plain(found.case), _plain(found.problem)
        lines.append(f"{found.severity.upper():7s} {case}: {problem}")
        lines.append(f"        -> {_plain(found.how_to_fix)}")
    count = Counter(found.severity for found in problems)
    cases = len({found.case for found in problems} - {WHOLE_COHORT})
    lines.append(
        f"{count['error']} errors and {count['warning']} warnings in {cases} cases."
        if problems
        else "No problem found."
    )
    if count["error"]:
        lines.append("Nothing is trained until the errors are mended.")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """One printable line, whatever is in a file name or in a library's message."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
