"""The embedded synthetic cohort as a source: no folder, names alone."""

import re
from collections.abc import Mapping
from typing import Any

from casesim.cohort.phantom import catalogue
from casesim.cohort.sources.found import Candidate, Found


def read(config: Mapping[str, Any]) -> Found:
    """As many phantoms as are asked for: pool first, held-out after it."""
    wishes = [config["pool"], config["held_out"]]
    count = sum(wish if isinstance(wish, int) else len(wish) for wish in wishes)
    for wish in wishes:
        for case in [] if isinstance(wish, int) else wish:
            match = re.fullmatch(r"phantom_(\d{3,5})", str(case))
            count = max(count, int(match[1]) if match else 0)
    return Found(
        [Candidate(case) for case in catalogue.case_ids(count)],
        list(catalogue.CHANNEL_NAMES),
        dict(catalogue.LABELS),
        {number: number for number in catalogue.LABELS.values()},
        [],
    )
