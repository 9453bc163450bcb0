"""Corrected label maps of pool cases: which there are, and whether they can be used.

A correction changes what one retrained model sees, and nothing else: the original
stays, and all scores are taken against it. Label numbers are those of the imported
cases (`results/nnunet/raw/.../labelsTr`), a copy of which is what one corrects.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from casesim.cohort.cases import Case, Cohort
from casesim.cohort.targets import Targets
from casesim.errors import UserError

_SUFFIXES = (".nii.gz", ".nii")


def find(folder: str, pool: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """The corrected label maps in a folder, `<case>.nii.gz`, by case id.

    Args:
        folder: of the corrected label maps.
        pool: cases that may be trained on.
        others: cases of the cohort that may not.

    Raises:
        UserError: no such folder, none in it, or files of other cases.
    """
    if not Path(folder).is_dir():
        raise UserError(
            f"cohort.corrections: there is no folder {folder}. It is to hold corrected "
            "label maps, named <case>.nii.gz."
        )
    found: dict[str, str] = {}
    problems = []
    for path in sorted(Path(folder).iterdir()):
        suffix = next((end for end in _SUFFIXES if path.name.endswith(end)), None)
        if suffix is None or path.name.startswith("."):
            continue
        case = path.name.removesuffix(suffix)
        if case in others:
            problems.append(f"{path} is of a held-out case: judges are not corrected")
        elif case not in pool:
            problems.append(f"{path} is of no pool case: name it <case>.nii.gz")
        elif case in found:
            problems.append(f"{found[case]} and {path} are of one case: keep one")
        else:
            found[case] = str(path)
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise UserError(f"cohort.corrections: not all files can be used:\n{listed}")
    if not found:
        raise UserError(
            f"cohort.corrections: {folder} holds no label map (<case>.nii.gz). Correct "
            "one, or set the key to null."
        )
    return found


def import_correction(
    case: str,
    images: Sequence[str],
    corrected: str,
    channel_names: Sequence[str],
    labels: Mapping[str, int],
    output: str,
    ignore: int | None = None,
) -> None:
    """Check a corrected label map as any cohort's, and take it over unaltered.

    Args:
        case: its id.
        images: the case's imported channel files.
        corrected: the corrected label map.
        channel_names: names of the channels.
        labels: name to number, background included.
        output: where it goes.
        ignore: number of the voxels that nobody labelled; None where there are none.

    Raises:
        UserError: all that is wrong with it.
    """
    from casesim.cohort.checks.listing import format_checks
    from casesim.cohort.checks.one_case import check_case
    from casesim.cohort.importing import write_label

    allowed = (*labels.values(), ignore)
    numbers = {number: number for number in allowed if number is not None}
    as_case = Case(case, tuple(images), corrected, "pool", True, "nnunet")
    cohort = Cohort(
        (as_case,),
        list(channel_names),
        dict(labels),
        numbers,
        targets=Targets(ignore=ignore),
    )
    problems, _ = check_case(as_case, cohort)
    if any(problem.severity == "error" for problem in problems):
        raise UserError(
            f"cohort.corrections: {corrected} cannot be used.\n"
            f"{format_checks(problems)}"
        )
    write_label(corrected, output, numbers)
