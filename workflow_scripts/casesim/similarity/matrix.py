"""The similarity matrix as a table: from scores, from its file, without own patients.

Row = the model fine-tuned on that train case (donor), column = the case it was
evaluated on (recipient), value = Dice, NaN where Dice is undefined. Its columns are
pool cases; held-out cases never enter.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from casesim.errors import UserError

# Rows are models, named by the train case they were fine-tuned on; columns are
# evaluated cases. The corner of a matrix file says so.
CORNER = "train_case/test_case"


def from_scores(
    table: pd.DataFrame,
    region: str,
    train: Sequence[str],
    test: Sequence[str],
    value: str = "dice",
    fit: str = "finetuned",
) -> pd.DataFrame:
    """The similarity matrix of one region: train cases (rows) by test cases (columns).

    `table` holds the tables of the models `<fit>/<train case>`, one below the other;
    `region` may be `mean`; `value` is the column of interest. Row i, column j is
    the score on case j of the model fine-tuned on case i. Raises `UserError` naming the
    first cell that is missing, `ValueError` when a cell is there twice.
    """
    models = [f"{fit}/{case}" for case in train]
    of_region = table[table["region"] == region]
    wide = of_region.pivot(index="model", columns="case", values=value)
    known = set(zip(of_region["model"], of_region["case"], strict=True))
    for model in models:
        for case in test:
            if (model, case) not in known:
                raise UserError(
                    f"There is no score of region {region} for model {model} on case "
                    f"{case}. Delete results/scores/{model}.tsv and run the workflow "
                    "again."
                )
    wide = wide.loc[models, list(test)]
    wide.index = list(train)
    return wide.rename_axis(index=CORNER, columns=None)


def read_matrix(path: Path | str) -> pd.DataFrame:
    """Read a matrix table: case ids as text, Dice as float, empty cells as NaN.

    Raises:
        UserError: a cell is no number.
    """
    text = read_text(path)
    text = text.set_index(text.columns[0]).rename_axis(None)
    try:
        return text.replace("", "nan").astype(float)
    except ValueError as error:
        raise UserError(
            f"{path} holds a cell that is no number ({error}). "
            "Delete the file and run the workflow again."
        ) from None


def read_text(path: Path | str) -> pd.DataFrame:
    """Read a table as text: pandas would take case "NA" for missing, "001" for 1."""
    return pd.read_csv(path, sep="\t", dtype=str, na_filter=False)


def own_cells(
    train: Sequence[str], test: Sequence[str], patients: Mapping[str, str] | None = None
) -> npt.NDArray[np.bool_]:
    """Where a model meets its own train case, or another scan of that patient.

    Args:
        train: the train case of each row.
        test: the case of each column.
        patients: the patient of each case that is not alone; a case that is not named
            is a patient of its own.

    Returns:
        (train, test).
    """
    rows, columns = (
        np.array([(patients or {}).get(case, case) for case in cases], dtype=object)
        for cases in (train, test)
    )
    return np.asarray(rows[:, None] == columns[None, :], dtype=bool)


def without_own_patient(
    matrix: pd.DataFrame, patients: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Copy `matrix` with NaN in the cells of `own_cells`: the diagonal, and other scans
    of the row's patient.

    A model's Dice on the case it was fine-tuned on says nothing about the others, and
    one on the next scan of the same patient hardly more.
    """
    return matrix.mask(own_cells(list(matrix.index), list(matrix.columns), patients))


def row_statistics(
    matrix: pd.DataFrame, patients: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Mean and maximum of each row, the row's own patient and NaN left out.

    Args:
        matrix: (train cases, pool cases), Dice.
        patients: as in `own_cells`.

    Returns:
        Indexed by case, columns `row_mean` and `row_max`.
    """
    others = without_own_patient(matrix, patients)
    return pd.DataFrame(
        {"row_mean": others.mean(axis=1), "row_max": others.max(axis=1)}
    )
