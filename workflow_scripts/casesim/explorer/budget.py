"""What of a case goes into a page of limited size, the most needed first."""

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MEGABYTE = 1_000_000
# The cases to review first get twice the room of the others.
REVIEWED_SHARE = 0.2
LEAST_REVIEWED = 3


def review_first(ranked: Sequence[str]) -> list[str]:
    """The head of the list of cases to review: a fifth of it, at least three."""
    return list(ranked[: max(LEAST_REVIEWED, math.ceil(REVIEWED_SHARE * len(ranked)))])


def room(
    case: str, cases: Sequence[str], first: Sequence[str], megabytes: float
) -> int:
    """Bytes that a case may take, so that all cases together keep to the budget.

    Each case can be told its share without knowing the size of another, and a case that
    is added or corrected changes no other case's files unless it changes their number.

    Args:
        case: whose share.
        cases: all cases of the page.
        first: the cases to review first, which get twice as much as others.
        megabytes: the budget of the whole page.
    """
    weights = {name: 2 if name in set(first) else 1 for name in cases}
    return int(megabytes * MEGABYTE * weights[case] / sum(weights.values()))


def order_of_maps(case: str, models: Sequence[str], ranked: Sequence[str]) -> list[str]:
    """Models by how much their label map of a case is needed.

    The base model, every arm, the model of the case itself, the models of the cases to
    review, in their order, and the rest.

    Args:
        case: the case that was segmented.
        models: as they are named in paths (`base`, `finetuned/<case>`, ...).
        ranked: the cases to review, first ones first.
    """
    rank = {f"finetuned/{name}": place for place, name in enumerate(ranked)}
    rank[f"finetuned/{case}"] = -1

    def need(model: str) -> tuple[int, int, str]:
        if not model.startswith("finetuned/"):
            return (0 if model == "base" else 1, 0, model)
        return (2, rank.get(model, len(rank)), model)

    return sorted(models, key=need)


def fit(
    wanted: Sequence[str], sizes: Mapping[str, int], room: int
) -> tuple[list[str], list[str]]:
    """Those that fit, in their order of need, and those left out.

    What is too large does not keep out a smaller one that comes later.
    """
    kept: list[str] = []
    left_out: list[str] = []
    for name in wanted:
        if sizes[name] <= room:
            kept.append(name)
            room -= sizes[name]
        else:
            left_out.append(name)
    return kept, left_out


def size(part: Mapping[str, Any]) -> int:
    """Bytes of an image or label map in the page, without the few of its header."""
    return len(part.get("data", "")) + sum(map(len, part.get("sprites", [])))


def read_ranking(path: str | os.PathLike[str]) -> list[str]:
    """The train cases of `cases.tsv`, those to review first at the head."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [row["case"] for row in csv.DictReader(file, delimiter="\t")]
