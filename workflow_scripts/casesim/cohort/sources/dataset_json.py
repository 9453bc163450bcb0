"""`dataset.json` of the Decathlon and of nnU-Net: channels and labels."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from casesim.cohort.targets import IGNORE, Targets, number_names
from casesim.errors import UserError

# Names of columns and files beside those of the labels.
RESERVED_LABEL_NAMES = ("mean", "undefined")


def read_dataset_json(root: Path, source: str) -> dict[str, Any]:
    """The content of a data set's `dataset.json`; UserError if there is none."""
    path = root / "dataset.json"
    if not path.is_file():
        raise UserError(
            f"cohort.path {root} has no dataset.json, which cohort.source '{source}' "
            "needs. Is it the folder that holds imagesTr and labelsTr, and is the "
            "source right (msd, nnunet, or brats for a folder for each patient)?"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not readable JSON: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object.")
    if not (root / "imagesTr").is_dir() and "dataset" not in content:
        raise UserError(f"cohort.path {root} has no folder imagesTr.")
    return content


def channel_names(path: Path, content: Mapping[str, Any], key: str) -> list[str]:
    """Channel names in the order of their numbers; UserError if these have gaps."""
    names = content.get(key)
    expected = [str(i) for i in range(len(names))] if isinstance(names, dict) else []
    if not names or set(names) != set(expected):
        raise UserError(
            f'{path}: "{key}" must name the channels, as {{"0": "FLAIR", "1": "T1w"}}.'
        )
    return [str(names[number]) for number in expected]


def _safe(where: str, name: str, taken: Iterable[str]) -> str:
    """A label's name as it can be part of a file name."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", str(name)).lstrip(".-") or "_"
    if safe in taken or safe in RESERVED_LABEL_NAMES:
        raise UserError(
            f"{where}: the label name '{name}' is reserved or too much like "
            "another one. Rename it."
        )
    return safe


def _number(where: str, name: str, number: Any) -> int:
    try:
        if isinstance(number, bool) or float(number) != int(float(number)):
            raise ValueError
        return int(float(number))
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{where}: label '{name}' has the number {number!r}, which is no whole "
            "number."
        ) from None


def label_numbers(where: str, labels: Mapping[str, Any]) -> dict[str, int]:
    """Path-safe label names to numbers 0, 1, 2, …, the background first."""
    numbers: dict[str, int] = {}
    for name, number in labels.items():
        if isinstance(number, list | tuple):
            raise UserError(
                f"{where}: label '{name}' is a region (a list of numbers), which only "
                "the dataset.json of cohort.source 'nnunet' may declare. Give each "
                "label one number here, and regions in the config under `regions`."
            )
        safe = _safe(where, name, numbers)
        if safe == IGNORE:
            raise UserError(
                f"{where}: an 'ignore' label can be declared in the dataset.json of "
                "cohort.source 'nnunet' only."
            )
        numbers[safe] = _number(where, name, number)
    numbers = dict(sorted(numbers.items(), key=lambda item: item[1]))
    background = next(iter(numbers), None)
    if list(numbers.values()) != list(range(len(numbers))) or len(numbers) < 2:
        raise UserError(
            f"{where}: labels must be numbered 0 (background), 1, 2, … without gaps; "
            f"found {', '.join(f'{name} = {n}' for name, n in numbers.items())}."
        )
    if background != "background":
        raise UserError(f"{where}: label 0 must be called 'background'.")
    return numbers


def labels_and_targets(
    where: str, content: Mapping[str, Any]
) -> tuple[dict[str, int], Targets]:
    """The labels of nnU-Net's `dataset.json`, with its regions and ignored label.

    Where regions are declared, each number is a label of its own: named as the region
    that holds nothing else, or `label_<number>`. Raises `UserError` for what nnU-Net
    would refuse, or would only notice in the middle of a training.
    """
    declared = dict(content["labels"])
    ignored = declared.pop(IGNORE, None)
    if not any(isinstance(n, list) and len(n) > 1 for n in declared.values()):
        single = {
            name: number[0] if isinstance(number, list) and number else number
            for name, number in declared.items()
        }
        labels = label_numbers(where, single)
        return labels, Targets(ignore=_ignored(where, ignored, labels))
    if declared.pop("background", None) not in (0, [0]):
        raise UserError(f"{where}: a label 'background' must have the number 0.")
    regions: dict[str, tuple[int, ...]] = {}
    for name, number in declared.items():
        members = number if isinstance(number, list) else [number]
        numbers = {_number(where, name, member) for member in members}
        if not numbers or min(numbers) < 1:
            raise UserError(
                f"{where}: the region '{name}' must consist of label numbers above 0."
            )
        regions[_safe(where, name, regions)] = tuple(sorted(numbers))
    names = number_names(regions)
    labels = label_numbers(
        where, {"background": 0, **{name: n for n, name in names.items()}}
    )
    order = _class_order(where, content.get("regions_class_order"), regions)
    return labels, Targets(regions, order, _ignored(where, ignored, labels))


def _class_order(
    where: str, order: Any, regions: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...]:
    """nnU-Net's `regions_class_order`, which says what a predicted label map holds."""
    told = (
        "it must hold a label number for each region, in the order of the regions, "
        "the large ones first"
    )
    if not isinstance(order, list) or len(order) != len(regions):
        raise UserError(
            f'{where} declares {len(regions)} regions, but "regions_class_order" is '
            f"{order!r}: {told}."
        )
    for number, (name, members) in zip(order, regions.items(), strict=True):
        if number not in members:
            raise UserError(
                f'{where}: "regions_class_order" writes {number} where {name} is '
                f"segmented, which is not one of its labels ({members}): {told}."
            )
    return tuple(order)


def _ignored(where: str, number: Any, labels: Mapping[str, int]) -> int | None:
    if number is None:
        return None
    expected = max(labels.values()) + 1
    if number != expected:
        raise UserError(
            f"{where}: 'ignore' has the number {number!r}; nnU-Net wants the one after "
            f"the last label, {expected}."
        )
    return expected
