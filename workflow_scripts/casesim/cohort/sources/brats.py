"""BraTS: a folder for each patient, in the styles of all its years."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from casesim.cohort.problem import Problem
from casesim.cohort.sources.dataset_json import label_numbers
from casesim.cohort.sources.found import (
    Candidate,
    Found,
    blame_endings,
    data_folder,
    image_files,
    new_folder,
    stem,
    subfolders,
)
from casesim.errors import UserError

# FLAIR, T1w, T1gd, T2w is the channel order of MSD's Task01_BrainTumour.
# For each channel: the end of its file name up to BraTS 2022, and from 2023 on.
BRATS_CHANNELS = {
    "FLAIR": ("_flair", "-t2f"),
    "T1w": ("_t1", "-t1n"),
    "T1gd": ("_t1ce", "-t1c"),
    "T2w": ("_t2", "-t2w"),
}
BRATS_LABEL_MAP = ("_seg", "-seg")


def read(config: Mapping[str, Any]) -> Found:
    """BraTS: a folder for each patient, in the root or one level below (HGG, LGG)."""
    root = data_folder(config)
    label_map = {0: 0}
    native = config["brats"]["labels"]
    for ours, (name, numbers) in enumerate(native.items(), start=1):
        for number in numbers:
            if number in label_map:
                raise UserError(
                    f"cohort.brats.labels: the number {number} of '{name}' is taken "
                    "already (0 is the background)."
                )
            label_map[number] = ours
    numbered = {name: number for number, name in enumerate(native, start=1)}
    labels = label_numbers("cohort.brats.labels", {"background": 0, **numbered})
    odd: list[Path] = []
    candidates, strays = _patients(root, True, odd)
    problems = blame_endings(odd) + [
        Problem(
            folder.name,
            "warning",
            f"{folder} holds no file named as BraTS names them.",
            f"Names must end in {_brats_names()}; the folder is not used.",
        )
        for folder in strays
    ]
    return Found(
        candidates,
        list(BRATS_CHANNELS),
        labels,
        label_map,
        problems,
        f"Expected: {root}/<patient>/<patient>_flair.nii.gz, … (names end in "
        f"{_brats_names()}).",
    )


def read_new(config: Mapping[str, Any], channels: int) -> list[Candidate]:
    """The cases of `cohort.new`: a folder for each patient; label maps are not used."""
    return _patients(new_folder(config), False, [])[0]


def _patients(
    root: Path, labelled: bool, odd: list[Path]
) -> tuple[list[Candidate], list[Path]]:
    """The patients' folders in or one level below `root`, and folders that are none."""
    candidates, strays = [], []
    for level_1 in subfolders(root):
        names = image_files(level_1, odd)
        nested = [] if names else subfolders(level_1)
        patients = [(folder, image_files(folder, odd)) for folder in nested]
        for folder, files in patients or [(level_1, names)]:
            candidate = _patient(folder, files, labelled)
            if candidate:
                candidates.append(candidate)
            else:
                strays.append(folder)
    return candidates, strays


def _brats_names() -> str:
    styles = zip(*BRATS_CHANNELS.values(), BRATS_LABEL_MAP, strict=True)
    return " or ".join(", ".join(style) for style in styles)


def _patient(folder: Path, names: Sequence[str], labelled: bool) -> Candidate | None:
    """One patient's files by the ends of their names; None if none is BraTS's."""
    ends = list(BRATS_CHANNELS.values())
    if labelled:
        ends.append(BRATS_LABEL_MAP)
    else:
        names = [n for n in names if not stem(n).lower().endswith(BRATS_LABEL_MAP)]
    found = [[n for n in names if stem(n).lower().endswith(end)] for end in ends]
    present = [matches[0] for matches in found if matches]
    if not present:
        return None
    # What is missing is expected to be named like what is there.
    old_ends = tuple(old for old, _ in ends)
    style = 0 if stem(present[0]).lower().endswith(old_ends) else 1
    ending = present[0][len(stem(present[0])) :]
    expected = [folder.name + end[style] + ending for end in ends]
    chosen = [m[0] if m else e for m, e in zip(found, expected, strict=True)]
    missing = [e for m, e in zip(found, expected, strict=True) if not m]
    paths = [str(folder / name) for name in chosen]
    candidate = Candidate(
        folder.name,
        tuple(paths[: len(BRATS_CHANNELS)]),
        paths[-1] if labelled else None,
        tuple(str(folder / name) for name in missing),
    )
    for matches in found:
        if len(matches) > 1:
            candidate.blame(
                "error",
                f"{folder} holds {' and '.join(matches)} for one channel or label map.",
                "Remove the one that is not meant.",
            )
    unused = sorted(set(names) - {name for matches in found for name in matches})
    if missing and unused:
        candidate.blame(
            "warning",
            f"{folder} lacks {', '.join(missing)}, but holds {', '.join(unused)}.",
            "If that is the missing file, rename it.",
        )
    return candidate
