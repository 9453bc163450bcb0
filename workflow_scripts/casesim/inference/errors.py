"""What kind of errors cells make: confusion of labels, and distance from the surface.

`results/errors/<model>.tsv` holds one row for each test case of a model: the confusion
matrix in voxels (columns `<reference> as <predicted>`), and the errors of the whole
foreground by their distance from the surface of the reference (`surface`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from casesim.errors import UserError
from casesim.inference.surface import BANDS_MM

if TYPE_CHECKING:
    import pandas as pd

BACKGROUND = "background"
_LIMITS = [*(f"up to {limit:g} mm" for limit in BANDS_MM), "beyond"]
_BANDS = {name: [f"{name} {limit}" for limit in _LIMITS] for name in ("fp", "fn")}


def _pairs(labels: Sequence[str]) -> list[str]:
    names = [BACKGROUND, *labels]
    return [f"{a} as {b}" for a in names for b in names]


def error_table(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Score records as a table, one row for each cell.

    Args:
        records: from `overlap.read_record`, all with the same labels.
    """
    import pandas as pd

    rows = []
    for record in records:
        flat = np.ravel(record["confusion"]).tolist()
        row = {"model": record["model"], "case": record["case"]}
        row |= dict(zip(_pairs(record["classes"]), flat, strict=True))
        for name, columns in _BANDS.items():
            row |= dict(zip(columns, record["bands"][name], strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Errors:
    """The errors of some models on some cases, as arrays.

    Attributes:
        models, cases: names, in the order of the axes.
        labels: of the foreground, in the order of `confusion` behind the background.
        confusion: float (model, case, reference, predicted), voxels; NaN for a cell
            that is not there.
        fp, fn: float (model, case, band), voxels; see `surface`.
    """

    models: list[str]
    cases: list[str]
    labels: list[str]
    confusion: np.ndarray
    fp: np.ndarray
    fn: np.ndarray

    def select(self, models: Sequence[str], cases: Sequence[str]) -> Errors:
        """The errors of these models (rows) and cases (columns), in this order."""
        rows = [self.models.index(model) for model in models]
        columns = [self.cases.index(case) for case in cases]
        grid = np.ix_(rows, columns)
        return Errors(
            list(models),
            list(cases),
            self.labels,
            self.confusion[grid],
            self.fp[grid],
            self.fn[grid],
        )


def from_tables(tables: Iterable[pd.DataFrame], labels: Sequence[str]) -> Errors:
    """Gather the tables of some models.

    Args:
        tables: as `error_table` gives them.
        labels: names of the foreground labels, in the order of their numbers in the
            data set.

    Raises:
        UserError: a table has other labels.
    """
    import pandas as pd

    table = pd.concat(list(tables), ignore_index=True)
    columns = [*_pairs(labels), *_BANDS["fp"], *_BANDS["fn"]]
    if missing := [name for name in columns if name not in table]:
        raise UserError(
            f"A table in results/errors lacks the column '{missing[0]}'. Delete "
            "results/errors to have it made again."
        )
    models, model = np.unique(table["model"], return_inverse=True)
    cases, case = np.unique(table["case"], return_inverse=True)
    values = np.full((len(models), len(cases), len(columns)), np.nan)
    values[model, case] = table[columns].to_numpy(float)
    n = len(labels) + 1
    confusion, fp, fn = np.split(values, [n * n, n * n + len(_LIMITS)], axis=2)
    return Errors(
        [str(name) for name in models],
        [str(name) for name in cases],
        list(labels),
        confusion.reshape(len(models), len(cases), n, n),
        fp,
        fn,
    )


def of_one_model(
    records: Iterable[Mapping[str, Any]], labels: Sequence[str], cases: Sequence[str]
) -> Errors:
    """Records of cells that a single model has, in the order of these cases.

    Out of fold, each case has another one, which counts as the same.
    """
    table = error_table({**record, "model": ""} for record in records)
    return from_tables([table], labels).select([""], cases)


def read_table(path: Any) -> pd.DataFrame:
    """Read a table of `error_table`; names stay text, whatever they look like.

    Raises `UserError` naming the file when it is missing or no such table.
    """
    import pandas as pd

    try:
        table = pd.read_csv(
            path, sep="\t", dtype={"model": str, "case": str}, na_filter=False
        )
        return table.astype(
            {name: "int64" for name in table.columns if name not in ("model", "case")}
        )
    except FileNotFoundError:
        raise UserError(f"{path} is missing. Run the workflow again.") from None
    except ValueError as error:
        raise UserError(
            f"{path} is not a table of errors ({error}). Delete it and run the "
            "workflow again."
        ) from None
