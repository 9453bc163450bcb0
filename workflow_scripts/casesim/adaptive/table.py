"""The tables of the stage: label-free features, scores, and what the regressor sees.

A row is one model on one case in one region. Features come from the softmax, the label
map and the agreement of models; Dice is joined from tables of their own, so that what
needs no label is made without one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from casesim.adaptive.agreement import AGREEMENTS
from casesim.errors import UserError
from casesim.files import atomic_path
from casesim.inference import overlap
from casesim.inference.overlap import MEAN

BASE = "base"
FINETUNED = "finetuned/"
OF_CELL = ("expected_dice", "entropy", "volume_ml", "components")
FEATURES = (*OF_CELL, *AGREEMENTS)
KEYS = ("model", "case", "region")


def read_cell(path: str | os.PathLike[str]) -> dict[str, Any]:
    """One label-free cell: `model`, `case`, `regions` (name to `OF_CELL`).

    Raises `UserError` naming the file when it is missing or damaged.
    """
    try:
        cell = json.loads(Path(path).read_text(encoding="utf-8"))
        for numbers in cell["regions"].values():
            if set(numbers) != set(OF_CELL):
                raise ValueError("a region lacks a feature")
        return {"model": str(cell["model"]), "case": str(cell["case"]), **cell}
    except FileNotFoundError:
        raise UserError(f"{path} is missing. Run the workflow again.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a cell without label ({error!r}). Delete it and run the "
            "workflow again."
        ) from None


def feature_table(
    cells: Iterable[Mapping[str, Any]],
    agreements: Mapping[tuple[str, str], Mapping[str, float]],
    labels: Sequence[str],
) -> pd.DataFrame:
    """Features of all models on one case: `KEYS` and `FEATURES`.

    Args:
        cells: from `read_cell`, all of one case.
        agreements: from `agreement.agreement`, for each model and region.
        labels: the single labels among the regions; the region `mean` has the mean
            of their features, undefined ones left out.
    """
    rows: list[dict[str, Any]] = []
    for cell in cells:
        of_labels = []
        for region, numbers in cell["regions"].items():
            # JSON has no NaN: what is undefined was written as null.
            known = {k: math.nan if v is None else v for k, v in numbers.items()}
            features = {**known, **agreements[cell["model"], region]}
            if region in labels:
                of_labels.append(features)
            key = {"model": cell["model"], "case": cell["case"], "region": region}
            rows.append({**key, **features})
        means = pd.DataFrame(of_labels, columns=list(FEATURES), dtype=float).mean()
        key = {"model": cell["model"], "case": cell["case"], "region": MEAN}
        rows.append({**key, **{name: means[name] for name in FEATURES}})
    return pd.DataFrame(rows, columns=[*KEYS, *FEATURES])


def score_case(
    case: str,
    label_maps: Iterable[tuple[str, np.ndarray]],
    reference: np.ndarray,
    labels: Mapping[str, Sequence[int]],
    regions: Mapping[str, Sequence[int]],
    ignore: int | None = None,
) -> pd.DataFrame:
    """Voxel counts and Dice of several segmentations of one case.

    Args:
        case: its id.
        label_maps: name of a model and its label map (z, y, x), one after the other.
        reference: label map of the same shape.
        labels: name to numbers, of what the row `mean` is the mean of.
        regions: name to numbers.
        ignore: number of voxels in the reference that count nowhere.

    Returns:
        `overlap.score_table`.

    Raises:
        UserError: a label map of another shape.
    """
    ignored = None if ignore is None else reference == ignore
    if ignored is not None:
        reference = np.where(ignored, 0, reference)
    records = []
    for model, label_map in label_maps:
        if label_map.shape != reference.shape:
            raise UserError(
                f"The label map of case {case} has shape {reference.shape} (z, y, x), "
                f"its segmentation by {model} {label_map.shape}. They must lie on the "
                "same grid."
            )
        if ignored is not None:
            label_map = np.where(ignored, 0, label_map)
        counts = overlap.count(label_map, reference, {**labels, **regions})
        records.append(
            {
                "model": model,
                "case": case,
                "labels": {name: counts[name] for name in labels},
                "regions": {name: counts[name] for name in regions},
            }
        )
    return overlap.score_table(records)


def gather(
    features: pd.DataFrame, scores: pd.DataFrame, roles: Mapping[str, str]
) -> pd.DataFrame:
    """The tidy table of the stage: `model, case, role, region`, `FEATURES`, `dice`.

    Args:
        features: from `feature_table`, of all cases.
        scores: tables of `overlap.score_table`; a cell without one has no Dice.
        roles: of each case.

    Raises:
        UserError: a score of a cell that has no features.
    """
    dice = scores[[*KEYS, "dice"]]
    table = features.merge(dice, on=list(KEYS), how="left", validate="one_to_one")
    cells = set(zip(*(features[key] for key in KEYS), strict=True))
    for cell in zip(*(dice[key] for key in KEYS), strict=True):
        if cell not in cells:
            raise UserError(
                f"There is a score of {cell[0]} on {cell[1]} ({cell[2]}), but no "
                "features. Delete results/adaptive/features and run the workflow again."
            )
    table.insert(2, "role", table["case"].map(roles))
    return table


def read(paths: Iterable[str | os.PathLike[str]]) -> pd.DataFrame:
    """Tables of this stage, one below the other; case names stay text.

    Raises `UserError` naming a file that is missing or no such table.
    """
    text = ("model", "case", "region", "role", "method", "kind", "words")
    tables = []
    for path in paths:
        try:
            tables.append(
                pd.read_csv(
                    path,
                    sep="\t",
                    dtype=dict.fromkeys(text, "str"),
                    # A case may be called NA: only an empty field lacks a value.
                    keep_default_na=False,
                    na_values=[""],
                )
            )
        except FileNotFoundError:
            raise UserError(f"{path} is missing. Run the workflow again.") from None
        except ValueError as error:
            raise UserError(
                f"{path} is not a table ({error}). Delete it and run the workflow "
                "again."
            ) from None
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def write(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Tab-separated values: floats with all digits, undefined ones left empty."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, lineterminator="\n")


def write_json(content: Any, path: str | os.PathLike[str]) -> None:
    """JSON, with null for what is not finite."""
    with atomic_path(path) as temporary:
        text = json.dumps(_finite(content), indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def row_means(scores: pd.DataFrame) -> pd.Series:
    """Mean Dice of each model over the cases of `scores`, one region; NaN left out."""
    return scores.groupby("model")["dice"].mean()


def patients_of(cases: pd.Series, patients: Mapping[str, str] | None) -> pd.Series:
    """The patient of each case; one that `patients` does not name is its own."""
    named = dict(patients or {})
    return cases.map(lambda case: named.get(case, case))


def row_means_without_own(
    scores: pd.DataFrame, patients: Mapping[str, str] | None = None
) -> pd.Series:
    """For each row of `scores`, one region: the model's mean Dice over the cases of
    *other* patients. NaN where there is none. Index and order of `scores`."""
    dice = scores["dice"].astype(float)
    of_model = dice.groupby(scores["model"])
    own = dice.groupby([scores["model"], patients_of(scores["case"], patients)])
    others = of_model.transform("sum") - own.transform("sum")
    number = of_model.transform("count") - own.transform("count")
    return others / number.where(number > 0)


def design(
    features: pd.DataFrame, row_mean: pd.Series, base_dice: Mapping[str, float]
) -> pd.DataFrame:
    """What the regressor sees of each row of `features`, one region.

    * each feature as it is, and relative to its column: minus the median over all
      models on the case. What makes a case hard is the same for all of them;
    * the base model's confidence in the case (`base_<feature>`);
    * `row_mean`, the model's mean Dice over calibration cases;
    * `base_dice_on_train_case`: the base's Dice on the case that the model was
      fine-tuned on, NaN for the base itself;
    * `is_base`.

    Volumes enter as log(1 + ml).

    Args:
        features: `KEYS` and `FEATURES`; all models on each of its cases, one region.
        row_mean: for each row of `features`, with its index.
        base_dice: of train cases, in the region.

    Returns:
        Index and order of `features`; all columns float, NaN where undefined.

    Raises:
        ValueError: more than one region, or a case without the base model.
    """
    if features["region"].nunique() > 1:
        raise ValueError("the features are of more than one region")
    values = features[list(FEATURES)].astype(float)
    values = values.assign(volume_ml=np.log1p(values["volume_ml"]))
    values = values.rename(columns={"volume_ml": "log_volume"})
    column = values.groupby(features["case"])
    relative = (values - column.transform("median")).add_suffix("_relative")
    is_base = features["model"] == BASE
    of_base = values[is_base].set_index(features["case"][is_base]).add_prefix("base_")
    if missing := sorted(set(features["case"]) - set(of_base.index)):
        raise ValueError(f"the base model has not segmented {missing[0]}")
    confidence = of_base.loc[features["case"]].set_index(features.index)
    train_case = features["model"].str.removeprefix(FINETUNED)
    return pd.concat([values, relative, confidence], axis=1).assign(
        row_mean=row_mean.astype(float),
        base_dice_on_train_case=train_case.map(dict(base_dice)).astype(float),
        is_base=is_base.astype(float),
    )
