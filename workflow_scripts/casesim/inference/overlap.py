"""Voxel counts of a prediction against a reference, Dice, and tables of both.

The policy for empty masks, everywhere in the workflow: Dice of two empty masks is
undefined, kept as NaN (an empty field in tables) and never replaced by 0 or 1; Dice of
one empty mask is 0. A mean leaves undefined values out, and says how many they were.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from casesim.cohort.targets import number_names
from casesim.errors import UserError
from casesim.inference.surface import LAST_BAND, Reference, count_by_band

if TYPE_CHECKING:
    import pandas as pd

COUNTS = ("tp", "fp", "fn", "n_pred", "n_ref")
MEAN = "mean"
# Int64, the nullable type, keeps voxel counts whole beside the empty ones of the mean.
_TYPES: dict[str, Any] = {
    **dict.fromkeys(("model", "case", "region"), "str"),
    **dict.fromkeys(COUNTS, "Int64"),
    "dice": "float64",
    "n_undefined": "int64",
}


def count(
    prediction: np.ndarray,
    reference: np.ndarray,
    regions: Mapping[str, Sequence[int]],
) -> dict[str, dict[str, int]]:
    """Count the voxels of each region in one pass over two label maps.

    `prediction` and `reference` are integer arrays of one shape, on the same grid;
    `regions` gives for each name the labels whose union it is (one label is a region of
    one). Returns for each region `tp` (in both), `fp` (predicted only), `fn` (reference
    only), `n_pred` = tp + fp and `n_ref` = tp + fn, in voxels.

    Voxels that are 0 in both count nowhere, so no region may contain label 0. Raises
    `ValueError` for maps that differ in shape or are not integer, for negative labels
    and regions with label 0.
    """
    if any(min(labels) < 1 for labels in regions.values()):
        raise ValueError("a region must consist of labels above 0")
    used = max((max(labels) for labels in regions.values()), default=0)
    return _of_regions(_joint(prediction, reference, used), regions)


def _joint(prediction: np.ndarray, reference: np.ndarray, used: int) -> np.ndarray:
    """Joint histogram (reference, predicted) of two label maps, labels 0 to `used`, or
    to the largest there is."""
    prediction, reference = np.asarray(prediction), np.asarray(reference)
    if prediction.shape != reference.shape:
        raise ValueError(
            f"the prediction has shape {prediction.shape}, the reference "
            f"{reference.shape}"
        )
    for label_map in (prediction, reference):
        if label_map.dtype.kind not in "iub":
            raise ValueError(f"a label map has type {label_map.dtype}, not integer")
    inside = np.flatnonzero(prediction.astype(bool) | reference.astype(bool))
    predicted = prediction.ravel()[inside].astype(np.intp)
    referred = reference.ravel()[inside].astype(np.intp)
    if inside.size and min(predicted.min(), referred.min()) < 0:
        raise ValueError("a label map has negative labels")
    n = 1 + max(used, int(predicted.max(initial=0)), int(referred.max(initial=0)))
    joint = np.bincount(referred * n + predicted, minlength=n * n).reshape(n, n)
    joint[0, 0] = reference.size - inside.size
    return joint


def _of_regions(
    joint: np.ndarray, regions: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, int]]:
    counts = {}
    for name, labels in regions.items():
        members = sorted(set(labels))
        tp = int(joint[np.ix_(members, members)].sum())
        n_pred = int(joint[:, members].sum())
        n_ref = int(joint[members].sum())
        counts[name] = {
            "tp": tp,
            "fp": n_pred - tp,
            "fn": n_ref - tp,
            "n_pred": n_pred,
            "n_ref": n_ref,
        }
    return counts


def dice(tp: int, fp: int, fn: int) -> float:
    """Dice = 2 tp / (2 tp + fp + fn) (Dice 1945); NaN where both masks are empty."""
    total = 2 * tp + fp + fn
    return 2 * tp / total if total else math.nan


def score_record(
    model: str,
    case: str,
    prediction: np.ndarray,
    reference: Reference,
    labels: Mapping[str, int | Sequence[int]],
    regions: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """One cell as it is stored in a score file, but for `seconds` and `device`.

    `labels` gives what the mean is of, by name: the number of each label (0, the
    background, is left out), or the numbers of each region that networks are trained
    on; `regions` the numbers of each other region. The arrays are those of `count`;
    voxels that the reference ignores count nowhere.

    Returns `model`, `case`, the counts of `labels` and `regions`, `confusion` (rows the
    reference's label, columns the predicted one, the background first and then
    `classes`), `classes` (a name for each single label, by number), and `bands`
    (`surface.count_by_band`).
    """
    scored = {
        name: (value,) if isinstance(value, int) else tuple(value)
        for name, value in labels.items()
        if value
    }
    everything = {**scored, **regions}
    used = max((max(members) for members in everything.values()), default=0)
    joint = _joint(reference.counted(prediction), reference.labels, used)
    if reference.ignored is not None:
        joint[0, 0] -= np.count_nonzero(reference.ignored)
    counts = _of_regions(joint, everything)
    classes = number_names(scored)
    numbers = [0, *classes]
    return {
        "model": model,
        "case": case,
        "labels": {name: counts[name] for name in scored},
        "regions": {name: counts[name] for name in regions},
        "classes": list(classes.values()),
        "confusion": joint[np.ix_(numbers, numbers)].tolist(),
        "bands": count_by_band(prediction, reference),
    }


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a score file; `UserError` names it when it is missing or damaged."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        for group in ("labels", "regions"):
            for counts in record[group].values():
                if any(type(counts[name]) is not int for name in COUNTS):
                    raise ValueError("a voxel count is not a whole number")
        if np.shape(record["confusion"]) != (len(record["classes"]) + 1,) * 2:
            raise ValueError("the confusion matrix does not fit the labels")
        if {len(record["bands"][name]) for name in ("fp", "fn")} != {LAST_BAND + 1}:
            raise ValueError("the bands of the errors are not those of this version")
        return {"model": str(record["model"]), "case": str(record["case"]), **record}
    except FileNotFoundError:
        raise UserError(f"{path} is missing. Run the workflow again.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a score file ({error!r}). Delete it and run the workflow "
            "again."
        ) from None


def score_table(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Scores of cells as a tidy table, one row for each case and region.

    Columns: `model`, `case`, `region` (a label, a region, or `mean`), the counts in
    voxels, `dice`, and `n_undefined`, how many Dice values of the row are undefined.
    The row `mean` is the mean Dice over the foreground labels, undefined ones left out
    and counted; it is NaN when all are undefined, and has no voxel counts.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for record in records:
        key = {"model": record["model"], "case": record["case"]}
        of_labels = []
        for group in ("labels", "regions"):
            for region, counts in record[group].items():
                value = dice(counts["tp"], counts["fp"], counts["fn"])
                if group == "labels":
                    of_labels.append(value)
                rows.append(
                    {
                        **key,
                        "region": region,
                        **{name: counts[name] for name in COUNTS},
                        "dice": value,
                        "n_undefined": int(math.isnan(value)),
                    }
                )
        defined = [value for value in of_labels if not math.isnan(value)]
        rows.append(
            {
                **key,
                "region": MEAN,
                "dice": math.fsum(defined) / len(defined) if defined else math.nan,
                "n_undefined": len(of_labels) - len(defined),
            }
        )
    table = pd.DataFrame(rows, columns=list(_TYPES))
    return table.astype(_TYPES)


def dice_by_case(records: Iterable[Mapping[str, Any]], region: str) -> pd.Series:
    """Dice of one model's cells in a region, or `MEAN`, by case id."""
    table = score_table(records)
    return table[table["region"] == region].set_index("case")["dice"]


def write_table(table: pd.DataFrame, path: Any, index: bool = False) -> None:
    """Write tab-separated values: floats with all digits, undefined ones left empty."""
    table.to_csv(path, sep="\t", index=index)


def read_table(path: Any) -> pd.DataFrame:
    """Read a table of `collect_scores`; case names stay text, whatever they look like.

    Raises `UserError` naming the file when it is not such a table.
    """
    import pandas as pd

    try:
        return pd.read_csv(
            path,
            sep="\t",
            dtype=_TYPES,
            # A case or region may be called NA: only an empty field lacks a value.
            keep_default_na=False,
            na_values=[""],
            usecols=list(_TYPES),
        )
    except FileNotFoundError:
        raise UserError(f"{path} is missing. Run the workflow again.") from None
    except ValueError as error:
        raise UserError(
            f"{path} is not a table of scores ({error}). Delete it and run the "
            "workflow again."
        ) from None
