"""`dataset.json` of the Decathlon and of nnU-Net: channels and labels."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from casesim.errors import UserError

# Names of columns and files beside those of the labels.
RESERVED_LABEL_NAMES = ("mean", "undefined")


def read_dataset_json(root: Path, source: str) -> dict[str, Any]:
    path = root / "dataset.json"
    if not path.is_file():
        raise UserError(
            f"cohort.path {root} has no dataset.json, which cohort.source '{source}' "
            "needs. Is it the folder that holds imagesTr and labelsTr, and is the "
            "source right (msd, nnunet, or brats for a folder for each patient)?"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not readable JSON: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object.")
    if not (root / "imagesTr").is_dir() and "dataset" not in content:
        raise UserError(f"cohort.path {root} has no folder imagesTr.")
    return content


def channel_names(path: Path, content: Mapping[str, Any], key: str) -> list[str]:
    names = content.get(key)
    expected = [str(i) for i in range(len(names))] if isinstance(names, dict) else []
    if not names or set(names) != set(expected):
        raise UserError(
            f'{path}: "{key}" must name the channels, as {{"0": "FLAIR", "1": "T1w"}}.'
        )
    return [str(names[number]) for number in expected]


def label_numbers(where: str, labels: Mapping[str, Any]) -> dict[str, int]:
    """Path-safe label names to numbers 0, 1, 2, …, the background first."""
    numbers: dict[str, int] = {}
    for name, number in labels.items():
        if isinstance(number, list | tuple):
            raise UserError(
                f"{where}: label '{name}' is a region (a list of numbers). Give each "
                "label one number here, and regions in the config under `regions`."
            )
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", str(name)).lstrip(".-") or "_"
        if safe == "ignore":
            raise UserError(f"{where}: nnU-Net's 'ignore' label is not supported.")
        if safe in numbers or safe in RESERVED_LABEL_NAMES:
            raise UserError(
                f"{where}: the label name '{name}' is reserved or too much like "
                "another one. Rename it."
            )
        try:
            numbers[safe] = int(number)
        except (TypeError, ValueError):
            raise UserError(
                f"{where}: label '{name}' has the number {number!r}, which is none."
            ) from None
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
