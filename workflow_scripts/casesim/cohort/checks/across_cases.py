"""All rules for a cohort: each case, and cases against each other."""

import math
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from casesim.cohort.cases import Case, Cohort
from casesim.cohort.checks.one_case import Digest, check_case
from casesim.cohort.problem import WHOLE_COHORT, Problem
from casesim.images import count_voxels
from casesim.memory import PROCESS_BYTES, SharedMemory

# Label maps with fewer voxels can be equal by chance.
TINY_LABEL_MAP = 10

# Times the median spacing of the cohort. Slices of 0.5 and of 5 mm are found in one
# cohort; centimetres or metres taken for millimetres are further away.
STRANGE_SPACING = 8.0
WRONG_SPACING = 50.0
# Bytes that the check of a case takes for each voxel of its files.
_PER_VOXEL = 16
# The largest side of an image, in mm; beyond, the unit is probably another.
SIDES = (5.0, 3000.0)


def check_cohort(
    cohort: Cohort, threads: int, memory: float = math.inf
) -> list[Problem]:
    """Everything that is wrong with a cohort's selected cases, sorted by case.

    Cases are read `threads` at a time at most; unpacking, hashing and numpy's loops run
    beside each other in threads. Together they take no more than `memory` bytes; a case
    that needs more goes alone.
    """
    problems = list(cohort.problems)
    digests: dict[str, Digest] = {}
    shared = SharedMemory(memory - PROCESS_BYTES)

    def check(case: Case) -> tuple[list[Problem], Digest | None]:
        with shared.taken(_memory(case)):
            return check_case(case, cohort)

    with ThreadPoolExecutor(max(1, threads)) as executor:
        results = executor.map(check, cohort.cases)
        for case, (found, digest) in zip(cohort.cases, results, strict=True):
            problems += found
            if digest:
                digests[case.id] = digest
    problems += _compare_cases(digests)
    if digests and not any(problem.severity == "error" for problem in problems):
        problems += _labels_in_no_case(cohort, digests)
    return sorted(problems, key=lambda p: (p.case, p.severity, p.problem))


def _memory(case: Case) -> float:
    """Bytes that the check of a case takes; 0 for files that cannot be read."""
    total = 0.0
    for path in case.existing_sources:
        with suppress(RuntimeError):
            total += count_voxels(path) * _PER_VOXEL
    return total


def _compare_cases(digests: dict[str, Digest]) -> list[Problem]:
    return [
        *_duplicate_images(digests),
        *_duplicate_labels(digests),
        *_mixed_spacings(digests),
        *_wrong_units(digests),
    ]


def _labels_in_no_case(cohort: Cohort, digests: dict[str, Digest]) -> list[Problem]:
    """Declared labels that nothing can be learnt of, and that have no Dice."""
    values = {value for case in cohort.pool for value in digests[case].label_values}
    found = {cohort.label_map[value] for value in values if value in cohort.label_map}
    missing = [
        f"{name} ({number})"
        for name, number in cohort.labels.items()
        if number != 0 and number not in found
    ]
    if not missing:
        return []
    return [
        Problem(
            WHOLE_COHORT,
            "warning",
            f"No pool case has the label {', '.join(missing)}: no model learns it, and "
            "its Dice is undefined or 0 everywhere.",
            "Do not set similarity.region to it or to a region of such labels alone; "
            "correct the label maps if they should have it.",
        )
    ]


def _duplicate_images(digests: dict[str, Digest]) -> list[Problem]:
    """The same channel under two ids (error), or twice in one case (warning)."""
    places: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for case, digest in digests.items():
        for name, channel in digest.channels.items():
            places[channel].append((case, name))
    shared: dict[tuple[str, ...], list[str]] = defaultdict(list)
    problems = []
    for same in places.values():
        cases = tuple(sorted({case for case, _ in same}))
        if len(cases) > 1:
            shared[cases].append(same[0][1])
        elif len(same) > 1:
            copies = ", ".join(name for _, name in same)
            problems.append(
                Problem(
                    cases[0],
                    "warning",
                    f"The channels {copies} are the same, voxel by voxel.",
                    "Replace the one that is a copy.",
                )
            )
    for cases, names in shared.items():
        problems.append(
            Problem(
                cases[0],
                "error",
                f"Duplicate images: {' and '.join(cases)} have the same voxels in "
                f"{', '.join(names)}.",
                "Keep one of the cases, or replace the file that is a copy: a case "
                "that is there twice would be trained on and judged by itself.",
            )
        )
    return problems


def _duplicate_labels(digests: dict[str, Digest]) -> list[Problem]:
    same: dict[str, list[str]] = defaultdict(list)
    for case, digest in digests.items():
        if digest.label_voxels >= TINY_LABEL_MAP:
            same[digest.label].append(case)
    return [
        Problem(
            min(cases),
            "warning",
            f"{' and '.join(sorted(cases))} have the same label map.",
            "Look which of the images it belongs to.",
        )
        for cases in same.values()
        if len(cases) > 1
    ]


def _mixed_spacings(digests: dict[str, Digest]) -> list[Problem]:
    groups: dict[str, list[str]] = defaultdict(list)
    for case, digest in digests.items():
        groups[" x ".join(f"{mm:.3g}" for mm in digest.spacing)].append(case)
    if len(groups) < 2:
        return []
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    shown = "; ".join(
        f"{spacing} mm in {len(cases)} ({', '.join(sorted(cases)[:3])}"
        f"{', …' if len(cases) > 3 else ''})"
        for spacing, cases in ordered[:10]
    )
    return [
        Problem(
            WHOLE_COHORT,
            "warning",
            f"The cases have {len(groups)} different spacings: {shown}.",
            "Nothing to do: nnU-Net resamples them to one. But cases may look alike "
            "only for their scanner.",
        )
    ]


def _wrong_units(digests: dict[str, Digest]) -> list[Problem]:
    """Cases whose voxels are of another order of size than the others', or absurd."""
    problems = []
    columns = zip(*(digest.spacing for digest in digests.values()), strict=True)
    usual = [float(np.median(column)) for column in columns]
    mend = "Look whether the header's spacing is in mm, and correct it."
    for case, digest in digests.items():
        mm = " x ".join(f"{value:.3g}" for value in digest.spacing)
        sides = [
            n * value for n, value in zip(digest.shape, digest.spacing, strict=True)
        ]
        if not SIDES[0] <= max(sides) <= SIDES[1]:
            size = " x ".join(f"{side:.3g}" for side in sides)
            text = f"The image is {size} mm large: its voxels have {mm} mm."
            problems.append(Problem(case, "warning", text, mend))
        if len(digests) < 3:
            continue
        pairs = list(zip(digest.spacing, usual, strict=True))
        factor = max(max(a / b, b / a) for a, b in pairs)
        if factor >= STRANGE_SPACING:
            severity = "error" if factor >= WRONG_SPACING else "warning"
            others = " x ".join(f"{value:.3g}" for value in usual)
            text = (
                f"The voxels have {mm} mm, those of the other cases {others} mm "
                f"(median): {factor:.3g} times as much or as little."
            )
            problems.append(Problem(case, severity, text, mend))
    return problems
