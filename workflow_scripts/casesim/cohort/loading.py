"""From the `cohort` section of the config to the selected cases.

`load_cohort` looks at file listings and `dataset.json` only, never into an image, and
imports nothing but the standard library: it runs whenever the workflow is parsed.
"""

from collections.abc import Callable, Mapping
from typing import Any

from casesim.cohort.cases import Case, Cohort
from casesim.cohort.ids import screen
from casesim.cohort.phantom import catalogue
from casesim.cohort.selection import select
from casesim.cohort.sources import brats, msd, nnunet_raw, phantoms
from casesim.cohort.sources.found import Found
from casesim.errors import UserError

_READERS: dict[str, Callable[[Mapping[str, Any]], Found]] = {
    "phantom": phantoms.read,
    "msd": msd.read,
    "nnunet": nnunet_raw.read,
    "brats": brats.read,
}


def load_cohort(config: Mapping[str, Any]) -> Cohort:
    """Find the cases that the `cohort` section of the config asks for.

    What is wrong with single cases (missing files, unsafe or duplicate ids, too few
    cases) is kept in `problems`, so that one check can list everything; ids that cannot
    be used are left out. Raises UserError where there is nothing to go on with: no such
    folder, an unusable `dataset.json`, an unknown id, no usable case.
    """
    folder = _READERS[config["source"]](config)
    usable, problems = screen(folder.candidates)
    problems = [*folder.problems, *problems]
    selection = select(
        [candidate.id for candidate in usable],
        config["pool"],
        config["train_cases"],
        config["held_out"],
        None if config["source"] == "phantom" else config["seed"],
        excluded={c.id for c in folder.candidates} - {c.id for c in usable},
    )
    problems += selection.problems
    if not selection.train:
        reasons = [f"{p.case}: {p.problem} {p.how_to_fix}" for p in problems[:10]]
        raise UserError(
            f"No usable case in cohort.path {config['path']}, read as cohort.source "
            f"'{config['source']}'.\n"
            + ("\n".join(reasons) if folder.candidates else folder.expected)
        )
    planted: Mapping[str, str] = {}
    if config["source"] == "phantom":
        planted = catalogue.assignments(
            config["phantom"], list(selection.train), config["seed"]
        )
    roles = dict.fromkeys(selection.pool, "pool")
    roles |= dict.fromkeys(selection.held_out, "held_out")
    chosen = sorted((c for c in usable if c.id in roles), key=lambda c: c.id)
    cases = tuple(
        Case(
            candidate.id,
            candidate.images,
            candidate.label,
            roles[candidate.id],
            candidate.id in selection.train,
            config["source"],
            planted.get(candidate.id, ""),
            candidate.missing,
        )
        for candidate in chosen
    )
    problems += [problem for candidate in chosen for problem in candidate.problems]
    return Cohort(
        cases,
        folder.channel_names,
        folder.labels,
        folder.label_map,
        problems=tuple(problems),
    )
