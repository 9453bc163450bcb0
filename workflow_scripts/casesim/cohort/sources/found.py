"""What a reader finds in a folder, and how folders are listed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from casesim.cohort.problem import Problem
from casesim.cohort.targets import LABELS_ALONE, Targets
from casesim.errors import UserError

FILE_ENDINGS = (".nii.gz", ".nii")


@dataclass
class Candidate:
    """A case as found in the folder, selected or not."""

    id: str
    images: tuple[str, ...] = ()
    label: str | None = None
    missing: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list)

    def blame(self, severity: str, problem: str, how_to_fix: str) -> None:
        """Note one thing that is wrong with the case."""
        self.problems.append(Problem(self.id, severity, problem, how_to_fix))

    @property
    def place(self) -> str:
        """One file of the case, for messages."""
        existing = [
            p for p in (*self.images, self.label) if p and p not in self.missing
        ]
        return existing[0] if existing else "no file"


@dataclass
class Found:
    """What a reader found."""

    candidates: list[Candidate]
    channel_names: list[str]
    labels: dict[str, int]
    label_map: dict[int, int]
    problems: list[Problem]
    expected: str = ""
    targets: Targets = LABELS_ALONE


def data_folder(config: Mapping[str, Any]) -> Path:
    """`cohort.path` as a folder that is there; UserError otherwise."""
    if not config["path"]:
        raise UserError(
            f"cohort.source '{config['source']}' needs cohort.path: the data's folder."
        )
    root = Path(config["path"]).expanduser()
    if not root.is_dir():
        raise UserError(f"cohort.path {config['path']} is not a folder.")
    return root


def new_folder(config: Mapping[str, Any]) -> Path:
    """`cohort.new`, or the imagesTs in it (as the Decathlon and nnU-Net have it).

    Raises:
        UserError: it is not a folder.
    """
    folder = Path(config["new"]).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"cohort.new {config['new']} is not a folder. It must hold the images of "
            f"the new cases in the format of cohort.source '{config['source']}'."
        )
    inner = folder / "imagesTs"
    return inner if inner.is_dir() else folder


def nifti_files(folder: Path) -> list[str]:
    """Names of the NIfTI files in a folder, sorted; hidden ones (`._*`) left out.

    A link whose target is gone does not count as a file.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name.endswith(FILE_ENDINGS)
                and not entry.name.startswith(".")
                and entry.is_file()
            )
    except (FileNotFoundError, NotADirectoryError):
        return []


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; hidden ones and macOS' copies left out."""
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if not entry.name.startswith((".", "__MACOSX")) and entry.is_dir()
        )


def stem(name: str) -> str:
    """A NIfTI file's name without its ending."""
    return next(name[: -len(end)] for end in FILE_ENDINGS if name.endswith(end))


def list_label_maps(folder: Path) -> dict[str, list[str]]:
    """File names by case id."""
    found: dict[str, list[str]] = {}
    for name in nifti_files(folder):
        found.setdefault(stem(name), []).append(name)
    return found


def blame_second_label(candidate: Candidate, maps: list[str] | None) -> None:
    """Note that a case has a label map both packed and unpacked, say."""
    if maps and len(maps) > 1:
        text = f"Two label maps for one case: {', '.join(maps)}."
        candidate.blame("error", text, "Remove the one that is not meant.")
