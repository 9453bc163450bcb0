"""The similarity matrix as a table: from scores, from its file, without its diagonal.

Row = the model fine-tuned on that train case (donor), column = the case it was
evaluated on (recipient), value = Dice, NaN where Dice is undefined. Its columns are
pool cases; held-out cases never enter.
"""

from collections.abc import Sequence
from pathlib import Path

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


def without_diagonal(matrix: pd.DataFrame) -> pd.DataFrame:
    """Copy `matrix` with NaN where a model meets its own train case.

    A model's Dice on the case it was fine-tuned on says nothing about the others.
    """
    own = matrix.index.to_numpy()[:, None] == matrix.columns.to_numpy()[None, :]
    return matrix.mask(own)


def row_statistics(matrix: pd.DataFrame) -> pd.DataFrame:
    """Mean and maximum of each row, diagonal and NaN left out.

    Returns:
        Indexed by case, columns `row_mean` and `row_max`.
    """
    others = without_diagonal(matrix)
    return pd.DataFrame(
        {"row_mean": others.mean(axis=1), "row_max": others.max(axis=1)}
    )
