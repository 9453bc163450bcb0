"""What is known of the cases: planted by this workflow, or told by the user's table.

Read by `detection` alone: nothing that names, ranks or removes a case may know it.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from casesim.cohort import spoil
from casesim.cohort.phantom import catalogue
from casesim.errors import UserError

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
    train = cohort[cohort["train_case"].astype(str).str.lower() == "true"]
    texts = train.set_index("case")["planted"].fillna("").astype(str).sort_index()
    where = "results/cohort.tsv"
    if table is not None:
        given, where = _read(Path(table)), str(table)
        if strangers := sorted(set(given.index) - set(cohort["case"])):
            raise UserError(
                f"{table} (evidence.truth) names {strangers[0]}, which is no case of "
                "the cohort. Mend the table."
            )
        texts = given.reindex(texts.index).fillna("")
    kinds = texts.str.partition(":")[0].str.strip()
    strengths = pd.to_numeric(texts.str.partition(":")[2], errors="coerce")
    if unknown := sorted(set(kinds) - set(_CLASSES)):
        raise UserError(
            f"Unknown defects in {where}: {', '.join(unknown)}. Known ones: "
            f"{', '.join(filter(None, _CLASSES))}."
        )
    defects = kinds.map(_CLASSES)
    return pd.DataFrame(
        {"kind": kinds.where(kinds != "sound", ""), "strength": strengths}
    ).assign(defect=defects)


def _read(path: Path) -> pd.Series:
    try:
        table = pd.read_csv(
            path, sep="," if path.suffix == ".csv" else "\t", dtype=str, na_filter=False
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} (evidence.truth) cannot be read ({error}). Mend it, or set "
            "evidence.truth to null."
        ) from None
    if missing := [name for name in ("case", "kind") if name not in table]:
        raise UserError(
            f"{path} (evidence.truth) has no column '{missing[0]}'. It needs case and "
            "kind."
        )
    if table["case"].duplicated().any():
        twice = table["case"][table["case"].duplicated()].iloc[0]
        raise UserError(f"{path} (evidence.truth) lists {twice} twice. Mend the table.")
    return table.set_index("case")["kind"]
