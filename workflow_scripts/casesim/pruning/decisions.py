"""A reviewer's decisions on train cases, as the explorer exports them.

Standard library only: Snakemake reads them whenever it parses the workflow.
"""

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casesim.errors import UserError

WORDS = ("fine", "relabel", "remove", "unsure")
COLUMNS = ("case", "decision", "note", "reviewer", "time", "matrix_digest")


@dataclass(frozen=True)
class Decisions:
    """What a table of decisions says.

    Attributes:
        path: the table.
        words: case to one of `WORDS`.
        matrix_digest: SHA-256 of the matrix that was looked at; empty without a case.
        held_out_seen: whether results on held-out cases had been looked at.
    """

    path: str
    words: Mapping[str, str]
    matrix_digest: str
    held_out_seen: bool

    def of(self, word: str) -> list[str]:
        """The cases with this decision, sorted."""
        return sorted(case for case, found in self.words.items() if found == word)

    def refuse_stale(self, matrix: str | os.PathLike[str]) -> None:
        """Make sure that the decisions were made on this matrix.

        Raises:
            UserError: on another one, in which a case may look different.
        """
        digest = hashlib.sha256(Path(matrix).read_bytes()).hexdigest()
        if self.matrix_digest != digest:
            raise UserError(
                f"{self.path}: the decisions were made on another matrix (digest "
                f"{self.matrix_digest[:8]}..., that of {matrix} is {digest[:8]}...), "
                "in which cases may look different. Open results/explorer/index.html, "
                "decide again and export, or set pruning.decisions to null."
            )

    def summary(self, corrected: Collection[str]) -> dict[str, Any]:
        """What the comparison says of the decisions.

        Returns:
            Number of cases by decision, `held_out_seen`, `not_corrected` (cases to be
            relabelled for which there is no corrected label map: they count as neither
            removed nor mended), and `statement`.
        """
        counts = Counter(self.words.values())
        waiting = [case for case in self.of("relabel") if case not in corrected]
        statement = "Decisions: " + ", ".join(f"{counts[w]} {w}" for w in WORDS) + "."
        if waiting:
            statement += (
                f" To be relabelled, but without a corrected label map, so neither "
                f"removed nor mended: {', '.join(waiting)}."
            )
        if self.held_out_seen:
            statement += (
                " Results on held-out cases had been seen when they were made, so the "
                "held-out cases are no fair judge of them."
            )
        return {
            **{word: counts[word] for word in WORDS},
            "held_out_seen": self.held_out_seen,
            "not_corrected": waiting,
            "statement": statement,
        }


def read(path: str | os.PathLike[str], train: Iterable[str]) -> Decisions:
    """Read a table of decisions, as exported by the explorer.

    Args:
        path: tab-separated, with `COLUMNS`, and `held_out_seen`, which counts as true
            where it is missing.
        train: the train cases, the only ones that can be decided on.

    Raises:
        UserError: no such file, or all that is wrong in it.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            rows = [
                {key: (value or "").strip() for key, value in row.items() if key}
                for row in reader
            ]
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"pruning.decisions: {path} cannot be read ({error}). Export the decisions "
            "from results/explorer/index.html, and give the path of that file."
        ) from None
    if missing := [name for name in COLUMNS if name not in columns]:
        raise UserError(
            f"pruning.decisions: {path} has no column {', '.join(missing)}. It is to "
            "be a table that was exported from results/explorer/index.html."
        )
    if problems := list(_problems(rows, set(train))):
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise UserError(f"pruning.decisions: {path} cannot be used:\n{listed}")
    return Decisions(
        str(path),
        {row["case"]: row["decision"] for row in rows},
        rows[0]["matrix_digest"],
        any(row.get("held_out_seen", "true").lower() != "false" for row in rows),
    )


def _problems(rows: list[dict[str, str]], train: set[str]) -> Iterable[str]:
    counts = Counter(row["case"] for row in rows)
    for case, number in counts.items():
        if case not in train:
            yield f"{case} is no train case (only these have a row to decide on)"
        if number > 1:
            yield f"{case} is decided on {number} times; keep one line"
    for row in rows:
        if row["decision"] not in WORDS:
            yield f"{row['case']}: '{row['decision']}' is none of {', '.join(WORDS)}"
    if len({row["matrix_digest"] for row in rows}) > 1:
        yield "the decisions were made on different matrices (matrix_digest)"
    removed = {row["case"] for row in rows if row["decision"] == "remove"}
    if not rows:
        yield "it holds no decision"
    if train <= removed:
        yield "all train cases are to be removed, so nothing is left to compare"
