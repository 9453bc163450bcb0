"""What is known of the cases: planted by this workflow, or told by the user's table.

Read by `detection` alone: nothing that names, ranks or removes a case may know it. Only
the standard library is imported with this module: a mistake in the table is told at the
start.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from casesim.cohort import spoil
from casesim.cohort.phantom import catalogue
from casesim.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

LABEL, IMAGE, CONTROL, SOUND = "label", "image", "control", ""

_CLASSES = {
    **dict.fromkeys((*catalogue.LABEL_DEFECTS, *spoil.KINDS), LABEL),
    **dict.fromkeys(catalogue.IMAGE_DEFECTS, IMAGE),
    **dict.fromkeys((*catalogue.CONTROLS, *spoil.CONTROLS), CONTROL),
    "bad_image": IMAGE,
    "control": CONTROL,
    "sound": SOUND,
    "": SOUND,
}


def read_truth(cohort: pd.DataFrame, table: Path | str | None = None) -> pd.DataFrame:
    """What is known of each train case.

    Args:
        cohort: `cohort.tsv`, with the columns `case`, `train_case` and `planted`.
        table: `evidence.truth`, a .tsv or .csv with the columns `case` and `kind`
            (`kind:strength` for a graded one); cases that it does not list are sound.
            It takes the place of what was planted.

    Returns:
        Indexed by case, sorted: `kind` (empty for sound ones), `strength` (NaN where
        there is none), `defect` (`label`, `image`, `control`, or empty).

    Raises:
        UserError: an unknown kind, or a table that cannot be read or lacks a column.
    """
    import pandas as pd

    train = cohort[cohort["train_case"].astype(str).str.lower() == "true"]
    texts = train.set_index("case")["planted"].fillna("").astype(str).sort_index()
    if table is not None:
        given = read_table(table, cohort["case"])
        texts = texts.index.to_series().map(given).fillna("").astype(str)
    kinds = texts.map(_kind)
    strengths = pd.to_numeric(texts.str.partition(":")[2], errors="coerce")
    if unknown := sorted(set(kinds) - set(_CLASSES)):
        raise UserError(
            f"Unknown defects in results/cohort.tsv: {', '.join(unknown)}. Known ones: "
            f"{', '.join(filter(None, _CLASSES))}."
        )
    defects = kinds.map(_CLASSES)
    return pd.DataFrame(
        {"kind": kinds.where(kinds != "sound", ""), "strength": strengths}
    ).assign(defect=defects)


def read_table(path: str | os.PathLike[str], cases: Iterable[str]) -> dict[str, str]:
    """What the user's table says of each case that it lists, `kind` or `kind:strength`.

    Args:
        path: as in `read_truth`.
        cases: of the whole cohort.

    Raises:
        UserError: a table that cannot be read or lacks a column, or all that is wrong
            in it.
    """
    table = Path(path)
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            separator = "," if table.suffix == ".csv" else "\t"
            reader = csv.DictReader(file, delimiter=separator)
            rows = [{k: v or "" for k, v in row.items() if k} for row in reader]
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"evidence.truth: {path} cannot be read ({error}). Mend it, or set the key "
            "to null."
        ) from None
    if missing := [name for name in ("case", "kind") if name not in columns]:
        raise UserError(
            f"evidence.truth: {path} has no column '{missing[0]}'. It needs case and "
            "kind."
        )
    if problems := list(_problems(rows, set(cases))):
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise UserError(
            f"evidence.truth: {path} cannot be used:\n{listed}\n"
            f"Known kinds: {', '.join(filter(None, _CLASSES))}."
        )
    return {row["case"]: row["kind"] for row in rows}


def _problems(rows: list[dict[str, str]], cases: set[str]) -> Iterator[str]:
    counts = Counter(row["case"] for row in rows)
    for case, number in counts.items():
        if number > 1:
            yield f"{case} is listed {number} times"
        if case not in cases:
            yield f"{case} is no case of the cohort"
    for kind in sorted({_kind(row["kind"]) for row in rows} - set(_CLASSES)):
        yield f"'{kind}' is no known kind"


def _kind(text: str) -> str:
    return text.partition(":")[0].strip()
