"""The embedded synthetic cohort as a source: no folder, names alone."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from casesim.cohort.phantom import catalogue
from casesim.cohort.sources.found import Candidate, Found
from casesim.errors import UserError


def read(config: Mapping[str, Any]) -> Found:
    """As many phantoms as are asked for: pool first, held-out after it.

    Calibration cases are those that follow, so that asking for some changes no other
    role. They are put before the held-out ones, which are taken from the end.
    """
    pool, held_out = config["pool"], config["held_out"]
    calibration = config.get("calibration", 0)
    asked = sum(_count(wish) for wish in (pool, held_out))
    count = max(asked, _last(pool), _last(held_out))
    total = max(count + _count(calibration), _last(calibration))
    ids = catalogue.case_ids(total)
    front = count - (held_out if isinstance(held_out, int) else 0)
    ordered = [*ids[:front], *ids[count:], *ids[front:count]]
    return Found(
        [Candidate(case) for case in ordered],
        list(catalogue.CHANNEL_NAMES),
        dict(catalogue.LABELS),
        {number: number for number in catalogue.LABELS.values()},
        [],
    )


def read_new(config: Mapping[str, Any], channels: int) -> list[Candidate]:
    """As many phantoms without a label as `cohort.new` asks for.

    Raises:
        UserError: it is a path.
    """
    wish = config["new"]
    if not isinstance(wish, int):
        raise UserError(
            f"cohort.new is {wish}, but the synthetic cohort has no folders: give the "
            "number of virtual patients without a label."
        )
    return [Candidate(f"phantom_new_{index:03d}") for index in range(1, wish + 1)]


def _count(wish: int | Sequence[str]) -> int:
    return wish if isinstance(wish, int) else len(wish)


def _last(wish: int | Sequence[str]) -> int:
    """The highest number among phantoms that are named one by one."""
    names = [] if isinstance(wish, int) else map(str, wish)
    matches = [re.fullmatch(r"phantom_(\d{3,5})", name) for name in names]
    return max((int(match[1]) for match in matches if match), default=0)
