"""What a reader finds in a folder, and how folders are listed."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from casesim.cohort import formats
from casesim.cohort.problem import WHOLE_COHORT, Problem
from casesim.cohort.targets import LABELS_ALONE, Targets
from casesim.errors import UserError

CONVERT_V1 = (
    "Convert it with nnU-Net's own nnUNetv2_convert_old_nnUNet_dataset and set "
    "cohort.source: nnunet."
)


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
    return _folder("cohort.path", config["path"])


def _folder(key: str, path: str, hint: str = "") -> Path:
    folder = Path(path).expanduser()
    try:
        found = folder.is_dir()
    except OSError as error:
        raise UserError(f"{key} {path} cannot be read: {error.strerror}.") from None
    if not found:
        raise UserError(f"{key} {path} is not a folder.{hint}")
    return folder


def new_folder(config: Mapping[str, Any]) -> Path:
    """`cohort.new`, or the imagesTs in it (as the Decathlon and nnU-Net have it).

    Raises:
        UserError: it is not a folder.
    """
    hint = (
        " It must hold the images of the new cases in the format of cohort.source "
        f"'{config['source']}'."
    )
    folder = _folder("cohort.new", config["new"], hint)
    inner = folder / "imagesTs"
    return inner if inner.is_dir() else folder


def image_files(
    folder: Path,
    odd: list[Path] | None = None,
    endings: tuple[str, ...] = formats.NIFTI,
) -> list[str]:
    """Names of the images in a folder, sorted; hidden ones (`._*`) left out.

    A link whose target is gone does not count as a file. Files whose ending is not in
    lower case are added to `odd`.

    Raises:
        UserError: the folder may not be read.
    """
    names = []
    for entry in _entries(folder):
        if entry.name.startswith(".") or not _leads_to_a_file(entry):
            continue
        if entry.name.endswith(endings):
            names.append(entry.name)
        elif odd is not None and entry.name.lower().endswith(endings):
            odd.append(folder / entry.name)
    return sorted(names)


def _leads_to_a_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself, or into a folder that may not be read
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds; nothing if it is not there."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read: {error.strerror}. See to its "
            "permissions, or to the disk."
        ) from None


def blame_endings(odd: Sequence[Path]) -> list[Problem]:
    """Note files whose ending is not written as readers expect it."""
    return [
        Problem(
            WHOLE_COHORT,
            "error",
            f"{path} is not read: its ending is not written in lower case.",
            f"Rename it to {_in_lower_case(path.name)}.",
        )
        for path in sorted(odd)
    ]


def _in_lower_case(name: str) -> str:
    ending = next(end for end in formats.ENDINGS if name.lower().endswith(end))
    return name[: -len(ending)] + ending


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; hidden ones and macOS' copies left out."""
    return sorted(
        Path(entry.path)
        for entry in _entries(folder)
        if not entry.name.startswith((".", "__MACOSX")) and entry.is_dir()
    )


def stem(name: str) -> str:
    """An image's name without its ending."""
    return next(name[: -len(end)] for end in formats.ENDINGS if name.endswith(end))


def is_split(names: Sequence[str]) -> bool:
    """Whether all files are named as single channels, `<case>_0000` and so on."""
    numbers = [re.fullmatch(r".+_(\d{4})", stem(name)) for name in names]
    return all(numbers) and any(match and match[1] == "0000" for match in numbers)


def list_label_maps(
    folder: Path,
    odd: list[Path] | None = None,
    endings: tuple[str, ...] = formats.NIFTI,
) -> dict[str, list[str]]:
    """File names by case id; for `odd` see `image_files`."""
    found: dict[str, list[str]] = {}
    for name in image_files(folder, odd, endings):
        found.setdefault(stem(name), []).append(name)
    return found


def blame_second_label(candidate: Candidate, maps: list[str] | None) -> None:
    """Note that a case has a label map both packed and unpacked, say."""
    if maps and len(maps) > 1:
        text = f"Two label maps for one case: {', '.join(maps)}."
        candidate.blame("error", text, "Remove the one that is not meant.")
