"""From the `cohort` section of the config to the selected cases.

`load_cohort` looks at file listings and `dataset.json` only, never into an image, and
imports nothing but the standard library: it runs whenever the workflow is parsed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from casesim.cohort import spoil
from casesim.cohort.cases import Case, Cohort
from casesim.cohort.ids import screen
from casesim.cohort.patients import find_patients
from casesim.cohort.phantom import catalogue
from casesim.cohort.problem import Problem
from casesim.cohort.selection import select
from casesim.cohort.sources import brats, msd, nnunet_raw, phantoms
from casesim.cohort.sources.found import Candidate, Found
from casesim.errors import UserError

_SOURCES = {"phantom": phantoms, "msd": msd, "nnunet": nnunet_raw, "brats": brats}


def load_cohort(config: Mapping[str, Any]) -> Cohort:
    """Find the cases that the `cohort` section of the config asks for.

    What is wrong with single cases (missing files, unsafe or duplicate ids, too few
    cases) is kept in `problems`, so that one check can list everything; ids that cannot
    be used are left out. Raises UserError where there is nothing to go on with: no such
    folder, an unusable `dataset.json`, an unknown id, no usable case, a patient in two
    roles.
    """
    folder = _SOURCES[config["source"]].read(config)
    usable, problems = screen(folder.candidates)
    problems = [*folder.problems, *problems]
    patients = find_patients([c.id for c in folder.candidates], config.get("patient"))
    selection = select(
        [candidate.id for candidate in usable],
        config["pool"],
        config["train_cases"],
        config["held_out"],
        None if config["source"] == "phantom" else config["seed"],
        excluded={c.id for c in folder.candidates} - {c.id for c in usable},
        calibration=config.get("calibration", 0),
        patients=patients,
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
    spoilt = spoil.assignments(
        config.get("spoil") or {},
        set(selection.train) - set(planted),
        config["seed"],
    )
    others = _labels_of_others(spoilt, selection.pool, usable, config, patients)
    roles = dict.fromkeys(selection.pool, "pool")
    roles |= dict.fromkeys(selection.held_out, "held_out")
    roles |= dict.fromkeys(selection.calibration, "calibration")
    new, more_problems = _find_new(config, folder)
    problems += more_problems
    roles |= dict.fromkeys((candidate.id for candidate in new), "new")
    patients |= find_patients(
        [candidate.id for candidate in new], config.get("patient"), complete=False
    )
    chosen = sorted((c for c in [*usable, *new] if c.id in roles), key=lambda c: c.id)
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
            patients[candidate.id],
            spoilt.get(candidate.id, ""),
            others.get(candidate.id),
        )
        for candidate in chosen
    )
    problems += [problem for candidate in chosen for problem in candidate.problems]
    problems += _known_patients(cases)
    return Cohort(
        cases,
        folder.channel_names,
        folder.labels,
        folder.label_map,
        problems=tuple(problems),
        targets=folder.targets,
    )


def _labels_of_others(
    spoilt: Mapping[str, str],
    pool: Sequence[str],
    usable: Sequence[Candidate],
    config: Mapping[str, Any],
    patients: Mapping[str, str],
) -> dict[str, str]:
    """The label file that takes the place of the own one, by case."""
    wanted = [case for case, text in spoilt.items() if text == "other_patient"]
    if wanted and config["source"] == "phantom":
        raise UserError(
            "cohort.spoil.other_patient needs label files: for the synthetic cohort "
            "use cohort.phantom.defects.other_patient."
        )
    labels = {candidate.id: candidate.label for candidate in usable}
    chosen = {
        case: spoil.partner(case, pool, config["seed"], patients) for case in wanted
    }
    return {case: label for case, o in chosen.items() if (label := labels[o])}


def _known_patients(cases: Sequence[Case]) -> list[Problem]:
    """New cases of patients whom the models, or what judges them, have seen."""
    known = {case.patient: case for case in cases if case.role != "new"}
    return [
        Problem(
            case.id,
            "warning",
            f"The new case is of the patient {case.patient}, as the "
            f"{known[case.patient].role} case {known[case.patient].id} is.",
            "Nothing to do. But what is said of its quality is too good for patients "
            "who have never been seen.",
        )
        for case in cases
        if case.role == "new" and case.patient in known
    ]


def _find_new(
    config: Mapping[str, Any], folder: Found
) -> tuple[list[Candidate], list[Problem]]:
    """The usable cases of `cohort.new`, and what is wrong with the others."""
    wish = config.get("new")
    if not wish:
        return [], []
    source = config["source"]
    if source != "phantom" and not isinstance(wish, str):
        raise UserError(
            f"cohort.new is {wish}: give the folder of the new cases' images (a number "
            "is for the synthetic cohort)."
        )
    found = _SOURCES[source].read_new(config, len(folder.channel_names))
    if not found:
        raise UserError(
            f"cohort.new {wish} holds no case, read as cohort.source '{source}'. It "
            "must hold images as the data set's, without labels."
        )
    usable, problems = screen(found)
    taken = {candidate.id.casefold(): candidate for candidate in folder.candidates}
    fresh = []
    for candidate in usable:
        if other := taken.get(candidate.id.casefold()):
            problems.append(
                Problem(
                    candidate.id,
                    "error",
                    f"Duplicate case id: {candidate.place} in cohort.new is called as "
                    f"a case of the data set ({other.place}).",
                    "Rename the files of the new case; it is not used.",
                )
            )
        else:
            fresh.append(candidate)
    return fresh, problems
