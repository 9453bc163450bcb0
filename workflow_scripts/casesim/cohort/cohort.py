"""Readers of MSD, nnU-Net and BraTS folders, and the selection of cases.

`load_cohort` looks at file listings and `dataset.json` only, never into an image, and
imports nothing but the standard library: it runs whenever the workflow is parsed.
"""

import csv
import difflib
import gzip
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from casesim.cohort import phantom
from casesim.errors import UserError
from casesim.files import atomic_path

FILE_ENDINGS = (".nii.gz", ".nii")

# FLAIR, T1w, T1gd, T2w is the channel order of MSD's Task01_BrainTumour.
# For each channel: the end of its file name up to BraTS 2022, and from 2023 on.
BRATS_CHANNELS = {
    "FLAIR": ("_flair", "-t2f"),
    "T1w": ("_t1", "-t1n"),
    "T1gd": ("_t1ce", "-t1c"),
    "T2w": ("_t2", "-t2w"),
}
BRATS_LABEL_MAP = ("_seg", "-seg")

# Stands in the case column for what concerns no single case; no case can be called so.
WHOLE_COHORT = "(cohort)"

# Names of columns and files beside those of the labels.
RESERVED_LABEL_NAMES = ("mean", "undefined")

MAX_ID_LENGTH = 100
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a cohort, in the user's words."""

    case: str
    severity: str
    problem: str
    how_to_fix: str


@dataclass(frozen=True)
class Case:
    """One selected patient, and where its files are.

    `images` is one 4-D file (MSD) or one file for each channel; empty for a phantom,
    as is `label`. `missing` are those of them that were not in the folder's listing.
    """

    id: str
    images: tuple[str, ...]
    label: str | None
    role: str
    train_case: bool
    source: str
    planted: str = ""
    missing: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """All files that the case should have."""
        return (*self.images, self.label) if self.label else self.images

    @property
    def existing_sources(self) -> tuple[str, ...]:
        """The files that the case has, by the listing at load time."""
        return tuple(path for path in self.sources if path not in self.missing)

    def as_record(self) -> dict[str, Any]:
        """The case as plain JSON values."""
        record = asdict(self)
        return {**record, "images": list(self.images), "missing": list(self.missing)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Case":
        """The inverse of `as_record`."""
        images, missing = tuple(record["images"]), tuple(record["missing"])
        return cls(**{**record, "images": images, "missing": missing})


@dataclass(frozen=True)
class Cohort:
    """The selected cases, and what their channels and labels mean.

    `labels` maps name to number, background included; the names can be parts of file
    names. `label_map` maps the numbers in the source files to those in `labels`.
    """

    cases: tuple[Case, ...]
    channel_names: list[str]
    labels: dict[str, int]
    label_map: dict[int, int]
    problems: tuple[Problem, ...] = ()

    @cached_property
    def _by_id(self) -> dict[str, Case]:
        return {case.id: case for case in self.cases}

    @property
    def pool(self) -> list[str]:
        """Ids of the cases that may be trained on, sorted."""
        return sorted(case.id for case in self.cases if case.role == "pool")

    @property
    def train(self) -> list[str]:
        """Ids of the pool cases that get a model of their own, sorted."""
        return sorted(case.id for case in self.cases if case.train_case)

    @property
    def held_out(self) -> list[str]:
        """Ids of the cases that no model is trained on, sorted."""
        return sorted(case.id for case in self.cases if case.role == "held_out")

    @property
    def test(self) -> list[str]:
        """Ids of the cases that models are evaluated on, sorted: all of them."""
        return sorted(case.id for case in self.cases)

    @property
    def has_planted_defects(self) -> bool:
        """Whether some train case is known to be wrong, as only phantoms are."""
        defects = phantom.LABEL_DEFECTS + phantom.IMAGE_DEFECTS
        return any(case.train_case and case.planted in defects for case in self.cases)

    @property
    def foreground_labels(self) -> list[str]:
        """Names of the labels without the background, by number."""
        return [name for name, number in self.labels.items() if number != 0]

    def case(self, case_id: str) -> Case:
        """The case of that id; KeyError if it is not in the cohort."""
        return self._by_id[case_id]


def load_cohort(config: Mapping[str, Any]) -> Cohort:
    """Find the cases that the `cohort` section of the config asks for.

    What is wrong with single cases (missing files, unsafe or duplicate ids, too few
    cases) is kept in `problems`, so that one check can list everything; ids that cannot
    be used are left out. Raises UserError where there is nothing to go on with: no such
    folder, an unusable `dataset.json`, an unknown id, no usable case.
    """
    folder = _READERS[config["source"]](config)
    usable, problems = _screen(folder.candidates)
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
        planted = phantom.assignments(
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


# Selection


@dataclass(frozen=True)
class Selection:
    """Case ids by role; `train` are among `pool`, which shares none with `held_out`."""

    pool: tuple[str, ...]
    train: tuple[str, ...]
    held_out: tuple[str, ...]
    problems: tuple[Problem, ...] = ()


def rank(ids: Iterable[str], seed: int | None) -> list[str]:
    """Order ids by a hash of seed and id: random, but blind to the order of files.

    With `seed` None they stay in the order given.
    """
    if seed is None:
        return list(ids)
    return sorted(ids, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())


def choose_refits(
    train: Iterable[str], refits: int | Sequence[str], seed: int
) -> list[str]:
    """The train cases that are fine-tuned a second time, sorted.

    A number takes so many from the front of `rank`: at random, blind to every result,
    and a larger number contains the smaller one's cases.

    Raises:
        UserError: a case in the list is no train case.
    """
    if isinstance(refits, int):
        return sorted(rank(train, seed)[:refits])
    if strangers := sorted({*map(str, refits)} - {*train}):
        raise UserError(
            f"In stability.refits, but not among the train cases: "
            f"{', '.join(strangers)}. Only a train case has a fine-tuned model to "
            "compare a refit with: name them in cohort.train_cases too."
        )
    return sorted(map(str, refits))


def select(
    ids: Collection[str],
    pool: int | Sequence[str],
    train_cases: int | Sequence[str],
    held_out: int | Sequence[str],
    seed: int | None,
    excluded: Collection[str] = (),
) -> Selection:
    """Choose pool, train cases and held-out cases, each by number or by explicit list.

    Numbers take the pool from the front of `rank` and the held-out cases from its end,
    and the train cases from the front of the pool: a larger number always contains the
    smaller one's cases. `excluded` are ids that exist but cannot be used; lists may
    name them, and they are left out. Too few cases, and ids named twice, give a problem
    and what is left. Raises UserError for ids that exist nowhere, for a case both in
    pool and held-out, and for train cases outside the pool.
    """
    problems: list[Problem] = []
    wishes = {"pool": pool, "train_cases": train_cases, "held_out": held_out}
    listed = {
        key: list(dict.fromkeys(map(str, wish)))
        for key, wish in wishes.items()
        if not isinstance(wish, int)
    }
    _refuse_unknown(listed, {*ids, *excluded})
    for key in listed:
        wish = wishes[key]
        assert not isinstance(wish, int)
        for case, times in Counter(map(str, wish)).items():
            if times > 1:
                text = f"cohort.{key} names the case {times} times"
                problems.append(Problem(case, "error", text, "Name it once."))

    ranked = rank(ids, seed)
    usable = set(ranked)
    fixed_pool = [i for i in listed.get("pool", []) if i in usable]
    fixed_held_out = [i for i in listed.get("held_out", []) if i in usable]
    both = sorted({*listed.get("pool", [])} & {*listed.get("held_out", [])})
    if both:
        raise UserError(
            f"In cohort.pool and in cohort.held_out: {', '.join(both)}. A held-out "
            "case must not be trained on: name each case in one list only."
        )
    if isinstance(pool, int):
        free = [i for i in ranked if i not in set(fixed_held_out)]
        chosen_pool = free[:pool]
    else:
        chosen_pool = fixed_pool
    if isinstance(held_out, int):
        free = [i for i in ranked if i not in set(chosen_pool)]
        chosen_held_out = free[max(0, len(free) - held_out) :]
    else:
        chosen_held_out = fixed_held_out

    if isinstance(train_cases, int):
        wanted_pool = pool if isinstance(pool, int) else len(listed["pool"])
        if train_cases > wanted_pool:
            raise UserError(
                f"cohort.train_cases is {train_cases}, but cohort.pool only "
                f"{wanted_pool}: train cases are pool cases. Lower cohort.train_cases "
                "or raise cohort.pool."
            )
        in_pool = set(chosen_pool)
        chosen_train = [i for i in ranked if i in in_pool][:train_cases]
    else:
        allowed = chosen_pool if isinstance(pool, int) else listed["pool"]
        outside = sorted(
            {*listed["train_cases"]} - {*allowed} - {*excluded},
        )
        if outside:
            raise UserError(
                f"In cohort.train_cases, but not in the pool: {', '.join(outside)}. "
                "Train cases are pool cases: name them in cohort.pool too."
            )
        chosen_train = [i for i in listed["train_cases"] if i in set(chosen_pool)]

    short = [
        f"{wish} {name} (cohort.{key})"
        for key, name, wish, chosen in (
            ("pool", "pool cases", pool, chosen_pool),
            ("held_out", "held-out cases", held_out, chosen_held_out),
        )
        if isinstance(wish, int) and len(chosen) < wish
    ]
    if short:
        problems.append(
            Problem(
                WHOLE_COHORT,
                "error",
                f"Too few cases for {' and '.join(short)}: there are {len(ranked)} "
                f"usable ones, enough for {len(chosen_pool)} in the pool and "
                f"{len(chosen_held_out)} held out.",
                "Lower these numbers, or add cases.",
            )
        )
    return Selection(
        tuple(chosen_pool),
        tuple(chosen_train),
        tuple(chosen_held_out),
        tuple(problems),
    )


def _refuse_unknown(listed: Mapping[str, Sequence[str]], known: set[str]) -> None:
    lines = []
    for key, names in listed.items():
        for name in names:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=3)
                hint = f" (did you mean {' or '.join(close)}?)" if close else ""
                lines.append(f"  cohort.{key}: {name}{hint}")
    if lines:
        raise UserError(
            "The config names cases that do not exist:\n"
            + "\n".join(lines)
            + f"\nThere are {len(known)} cases, such as {', '.join(sorted(known)[:3])}."
        )


# Case ids


@dataclass
class _Candidate:
    """A case as found in the folder, selected or not."""

    id: str
    images: tuple[str, ...] = ()
    label: str | None = None
    missing: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list)

    def blame(self, severity: str, problem: str, how_to_fix: str) -> None:
        self.problems.append(Problem(self.id, severity, problem, how_to_fix))

    @property
    def place(self) -> str:
        existing = [
            p for p in (*self.images, self.label) if p and p not in self.missing
        ]
        return existing[0] if existing else "no file"


def _screen(candidates: Iterable[_Candidate]) -> tuple[list[_Candidate], list[Problem]]:
    """The candidates with ids of their own that can be parts of paths."""
    alike: dict[str, list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        alike[candidate.id.casefold()].append(candidate)
    usable: list[_Candidate] = []
    problems = []
    for group in alike.values():
        if len(group) > 1:
            places = ", ".join(sorted(candidate.place for candidate in group))
            ids = sorted({candidate.id for candidate in group})
            what = "is there" if len(ids) == 1 else "differs from another only by case"
            problems.append(
                Problem(
                    ids[0],
                    "error",
                    f"Duplicate case id: {', '.join(ids)} {what} ({places}).",
                    "Rename or remove all but one; none of them is used.",
                )
            )
            continue
        reason = _unsafe(group[0].id)
        if reason:
            problems.append(
                Problem(
                    group[0].id,
                    "error",
                    f"The case id {reason} ({group[0].place}); ids become file names.",
                    "Rename the case's files; it is not used.",
                )
            )
        else:
            usable += group
    return usable, problems


def _unsafe(case_id: str) -> str:
    """Why the id cannot be part of a path; empty if it can."""
    if len(case_id) > MAX_ID_LENGTH:
        return f"is longer than {MAX_ID_LENGTH} characters"
    if not case_id.isascii():
        return "is not plain ASCII"
    if case_id.startswith((".", "-")):
        return "starts with a dot or a dash"
    if case_id.endswith("_seg"):
        return "ends in _seg, which nnU-Net keeps for label maps"
    if not SAFE_ID.fullmatch(case_id):
        return "has characters other than letters, digits, '.', '_' and '-'"
    return ""


# Folders


@dataclass
class _Folder:
    """What a reader found."""

    candidates: list[_Candidate]
    channel_names: list[str]
    labels: dict[str, int]
    label_map: dict[int, int]
    problems: list[Problem]
    expected: str = ""


def _files(folder: Path) -> list[str]:
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


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if not entry.name.startswith((".", "__MACOSX")) and entry.is_dir()
        )


def _stem(name: str) -> str:
    return next(name[: -len(end)] for end in FILE_ENDINGS if name.endswith(end))


def _root(config: Mapping[str, Any]) -> Path:
    if not config["path"]:
        raise UserError(
            f"cohort.source '{config['source']}' needs cohort.path: the data's folder."
        )
    root = Path(config["path"]).expanduser()
    if not root.is_dir():
        raise UserError(f"cohort.path {config['path']} is not a folder.")
    return root


def _dataset_json(root: Path, source: str) -> dict[str, Any]:
    path = root / "dataset.json"
    if not path.is_file():
        raise UserError(
            f"cohort.path {root} has no dataset.json, which cohort.source '{source}' "
            "needs. Is it the folder that holds imagesTr and labelsTr, and is the "
            "source right (msd, nnunet, or brats for a folder for each patient)?"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not readable JSON: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object.")
    if not (root / "imagesTr").is_dir() and "dataset" not in content:
        raise UserError(f"cohort.path {root} has no folder imagesTr.")
    return content


def _channel_names(path: Path, content: Mapping[str, Any], key: str) -> list[str]:
    names = content.get(key)
    expected = [str(i) for i in range(len(names))] if isinstance(names, dict) else []
    if not names or set(names) != set(expected):
        raise UserError(
            f'{path}: "{key}" must name the channels, as {{"0": "FLAIR", "1": "T1w"}}.'
        )
    return [str(names[number]) for number in expected]


def _label_numbers(where: str, labels: Mapping[str, Any]) -> dict[str, int]:
    """Path-safe label names to numbers 0, 1, 2, …, the background first."""
    numbers: dict[str, int] = {}
    for name, number in labels.items():
        if isinstance(number, list | tuple):
            raise UserError(
                f"{where}: label '{name}' is a region (a list of numbers). Give each "
                "label one number here, and regions in the config under `regions`."
            )
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", str(name)).lstrip(".-") or "_"
        if safe == "ignore":
            raise UserError(f"{where}: nnU-Net's 'ignore' label is not supported.")
        if safe in numbers or safe in RESERVED_LABEL_NAMES:
            raise UserError(
                f"{where}: the label name '{name}' is reserved or too much like "
                "another one. Rename it."
            )
        try:
            numbers[safe] = int(number)
        except (TypeError, ValueError):
            raise UserError(
                f"{where}: label '{name}' has the number {number!r}, which is none."
            ) from None
    numbers = dict(sorted(numbers.items(), key=lambda item: item[1]))
    background = next(iter(numbers), None)
    if list(numbers.values()) != list(range(len(numbers))) or len(numbers) < 2:
        raise UserError(
            f"{where}: labels must be numbered 0 (background), 1, 2, … without gaps; "
            f"found {', '.join(f'{name} = {n}' for name, n in numbers.items())}."
        )
    if background != "background":
        raise UserError(f"{where}: label 0 must be called 'background'.")
    return numbers


def _read_phantom(config: Mapping[str, Any]) -> _Folder:
    """As many phantoms as are asked for: pool first, held-out after it."""
    wishes = [config["pool"], config["held_out"]]
    count = sum(wish if isinstance(wish, int) else len(wish) for wish in wishes)
    for wish in wishes:
        for case in [] if isinstance(wish, int) else wish:
            match = re.fullmatch(r"phantom_(\d{3,5})", str(case))
            count = max(count, int(match[1]) if match else 0)
    return _Folder(
        [_Candidate(case) for case in phantom.case_ids(count)],
        list(phantom.CHANNEL_NAMES),
        dict(phantom.LABELS),
        {number: number for number in phantom.LABELS.values()},
        [],
    )


def _read_msd(config: Mapping[str, Any]) -> _Folder:
    """Medical Segmentation Decathlon: one 4-D file in imagesTr for each case."""
    root = _root(config)
    path = root / "dataset.json"
    content = _dataset_json(root, "msd")
    if "modality" not in content and "channel_names" in content:
        raise UserError(
            f"{path} is nnU-Net's (it has channel_names): set cohort.source: nnunet."
        )
    names = content.get("labels")
    if not isinstance(names, dict):
        raise UserError(f'{path}: "labels" must be an object.')
    labels = _label_numbers(
        str(path), {str(name): number for number, name in names.items()}
    )
    images, label_maps = root / "imagesTr", root / "labelsTr"
    found = _label_maps(label_maps)
    candidates = []
    for name in _files(images):
        label = found.pop(_stem(name), None)
        candidates.append(_with_label(_stem(name), images / name, label, label_maps))
    # A label map left over belongs to an image that is missing.
    for case, maps in found.items():
        image = str(images / f"{case}.nii.gz")
        candidate = _Candidate(case, (image,), str(label_maps / maps[0]), (image,))
        candidates.append(candidate)
    return _Folder(
        candidates,
        _channel_names(path, content, "modality"),
        labels,
        {number: number for number in labels.values()},
        _compare_training_list(path, content, {c.id for c in candidates}),
        f"Expected: {images}/<case>.nii.gz and {label_maps}/<case>.nii.gz.",
    )


def _label_maps(folder: Path) -> dict[str, list[str]]:
    """File names by case id."""
    found: dict[str, list[str]] = {}
    for name in _files(folder):
        found.setdefault(_stem(name), []).append(name)
    return found


def _with_label(
    case: str, image: Path, maps: list[str] | None, folder: Path
) -> _Candidate:
    label = str(folder / (maps[0] if maps else f"{case}.nii.gz"))
    candidate = _Candidate(case, (str(image),), label, () if maps else (label,))
    _blame_second_label(candidate, maps)
    return candidate


def _blame_second_label(candidate: _Candidate, maps: list[str] | None) -> None:
    if maps and len(maps) > 1:
        text = f"Two label maps for one case: {', '.join(maps)}."
        candidate.blame("error", text, "Remove the one that is not meant.")


def _compare_training_list(
    path: Path, content: Mapping[str, Any], found: set[str]
) -> list[Problem]:
    """What MSD's list of training cases says against the files."""
    listed = Counter(
        name.removesuffix(".gz").removesuffix(".nii")
        for entry in content.get("training", [])
        if isinstance(entry, dict)
        for name in [str(entry.get("image", "")).rpartition("/")[2]]
    )
    problems = [
        Problem(
            case,
            "error",
            f"Duplicate case id: {path} lists it {times} times under 'training'.",
            "Remove the surplus entries.",
        )
        for case, times in listed.items()
        if times > 1
    ]
    absent = sorted(set(listed) - found)
    if absent:
        shown = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
        problems.append(
            Problem(
                WHOLE_COHORT,
                "warning",
                f"{path} lists {len(absent)} cases that have no file: {shown}",
                "Nothing to do if the folder is a part of the data set on purpose; "
                "otherwise copy the missing files. They are not used.",
            )
        )
    return problems


def _read_nnunet(config: Mapping[str, Any]) -> _Folder:
    """nnU-Net's raw format: imagesTr/<case>_0000.nii.gz, …, labelsTr/<case>.nii.gz.

    Cases named in `dataset.json` under "dataset" (nnU-Net's
    `get_filenames_of_train_images_and_targets`) are taken from there.
    """
    root = _root(config)
    path = root / "dataset.json"
    content = _dataset_json(root, "nnunet")
    if "channel_names" not in content and "modality" in content:
        raise UserError(
            f"{path} is the Decathlon's or nnU-Net v1's (it has 'modality', not "
            "'channel_names'): set cohort.source: msd if the images are 4-D."
        )
    ending = content.get("file_ending", ".nii.gz")
    if ending not in FILE_ENDINGS:
        raise UserError(
            f"{path}: file_ending is {ending}; only .nii.gz and .nii can be read. "
            "Convert the images."
        )
    if not isinstance(content.get("labels"), dict):
        raise UserError(f'{path}: "labels" must be an object.')
    channels = _channel_names(path, content, "channel_names")
    labels = _label_numbers(str(path), content["labels"])
    if isinstance(content.get("dataset"), dict):
        candidates = _listed_cases(path, content["dataset"], len(channels))
        problems: list[Problem] = []
    else:
        candidates, problems = _scanned_cases(root, ending, len(channels))
    return _Folder(
        candidates,
        channels,
        labels,
        {number: number for number in labels.values()},
        problems,
        f"Expected: {root}/imagesTr/<case>_0000{ending} and "
        f"{root}/labelsTr/<case>{ending}.",
    )


def _scanned_cases(
    root: Path, ending: str, channels: int
) -> tuple[list[_Candidate], list[Problem]]:
    images, label_maps = root / "imagesTr", root / "labelsTr"
    problems = []
    numbers: dict[str, set[int]] = defaultdict(set)
    for name in _files(images):
        match = re.fullmatch(r"(.+)_(\d{4})", _stem(name))
        if match and name.endswith(ending):
            numbers[match[1]].add(int(match[2]))
        else:
            problems.append(
                Problem(
                    WHOLE_COHORT,
                    "warning",
                    f"{images / name} is no channel of a case.",
                    f"Name it <case>_0000{ending}, _0001, … or take it away; it is not "
                    "used.",
                )
            )
    found = _label_maps(label_maps)
    candidates = []
    for case in sorted({*numbers, *found}):
        files = tuple(str(images / f"{case}_{i:04d}{ending}") for i in range(channels))
        maps = found.get(case)
        label = str(label_maps / (maps[0] if maps else f"{case}{ending}"))
        missing = [file for i, file in enumerate(files) if i not in numbers[case]]
        missing += [] if maps else [label]
        candidate = _Candidate(case, files, label, tuple(missing))
        _blame_second_label(candidate, maps)
        surplus = sorted(numbers[case] - set(range(channels)))
        if surplus:
            names = ", ".join(f"{case}_{i:04d}{ending}" for i in surplus)
            candidate.blame(
                "error",
                f"Wrong channel count: {names} in {images}, but dataset.json names "
                f"{channels} channels.",
                "Remove the surplus files, or name their channels in channel_names.",
            )
        candidates.append(candidate)
    return candidates, problems


def _listed_cases(
    path: Path, dataset: Mapping[str, Any], channels: int
) -> list[_Candidate]:
    listings: dict[Path, set[str]] = {}
    candidates = []
    for case, entry in dataset.items():
        try:
            paths = [os.path.expandvars(p) for p in (*entry["images"], entry["label"])]
        except (KeyError, TypeError):
            raise UserError(
                f"{path}: \"dataset\" must give 'images' and 'label' for {case}."
            ) from None
        files = [Path(os.path.normpath(path.parent / p)) for p in paths]
        for file in files:
            if file.parent not in listings:
                listings[file.parent] = set(_files(file.parent))
        missing = [str(f) for f in files if f.name not in listings[f.parent]]
        images = tuple(map(str, files[:-1]))
        candidate = _Candidate(case, images, str(files[-1]), tuple(missing))
        if len(images) != channels:
            candidate.blame(
                "error",
                f"Wrong channel count: {path} lists {len(images)} images for the case, "
                f"but names {channels} channels.",
                "List one image for each channel.",
            )
        candidates.append(candidate)
    return candidates


def _read_brats(config: Mapping[str, Any]) -> _Folder:
    """BraTS: a folder for each patient, in the root or one level below (HGG, LGG)."""
    root = _root(config)
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
    labels = _label_numbers("cohort.brats.labels", {"background": 0, **numbered})
    candidates = []
    problems = []
    for level_1 in _folders(root):
        names = _files(level_1)
        nested = [] if names else _folders(level_1)
        patients = [(folder, _files(folder)) for folder in nested]
        for folder, files in patients or [(level_1, names)]:
            candidate = _patient(folder, files)
            if candidate:
                candidates.append(candidate)
            else:
                problems.append(
                    Problem(
                        folder.name,
                        "warning",
                        f"{folder} holds no file named as BraTS names them.",
                        f"Names must end in {_brats_names()}; the folder is not used.",
                    )
                )
    return _Folder(
        candidates,
        list(BRATS_CHANNELS),
        labels,
        label_map,
        problems,
        f"Expected: {root}/<patient>/<patient>_flair.nii.gz, … (names end in "
        f"{_brats_names()}).",
    )


def _brats_names() -> str:
    styles = zip(*BRATS_CHANNELS.values(), BRATS_LABEL_MAP, strict=True)
    return " or ".join(", ".join(style) for style in styles)


def _patient(folder: Path, names: Sequence[str]) -> _Candidate | None:
    """One patient's files by the ends of their names; None if none is BraTS's."""
    ends = [*BRATS_CHANNELS.values(), BRATS_LABEL_MAP]
    found = [[n for n in names if _stem(n).lower().endswith(end)] for end in ends]
    present = [matches[0] for matches in found if matches]
    if not present:
        return None
    # What is missing is expected to be named like what is there.
    old_ends = tuple(old for old, _ in ends)
    style = 0 if _stem(present[0]).lower().endswith(old_ends) else 1
    ending = present[0][len(_stem(present[0])) :]
    expected = [folder.name + end[style] + ending for end in ends]
    chosen = [m[0] if m else e for m, e in zip(found, expected, strict=True)]
    missing = [e for m, e in zip(found, expected, strict=True) if not m]
    paths = [str(folder / name) for name in chosen]
    candidate = _Candidate(
        folder.name,
        tuple(paths[:-1]),
        paths[-1],
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


_READERS: dict[str, Callable[[Mapping[str, Any]], _Folder]] = {
    "phantom": _read_phantom,
    "msd": _read_msd,
    "nnunet": _read_nnunet,
    "brats": _read_brats,
}


# Files


def write_cohort(
    cohort: Cohort, raw_dir: str | os.PathLike[str], path: str | os.PathLike[str]
) -> None:
    """Write cohort.tsv: who plays which part, and where the imported files are."""
    raw = Path(raw_dir)
    columns = ["case", "image", "label", "role", "train_case", "source", "planted"]
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        for case in cohort.cases:
            writer.writerow(
                [
                    case.id,
                    (raw / "imagesTr" / f"{case.id}_0000.nii.gz").as_posix(),
                    (raw / "labelsTr" / f"{case.id}.nii.gz").as_posix(),
                    case.role,
                    str(case.train_case).lower(),
                    case.source,
                    case.planted,
                ]
            )


def import_case(
    case: Case,
    label_map: Mapping[int, int],
    images_out: Sequence[str | os.PathLike[str]],
    label_out: str | os.PathLike[str],
    phantom_config: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> None:
    """Write one case in nnU-Net's raw format: a .nii.gz for each channel, and labels.

    Voxels, their type and scaling, and the geometry in the header stay as they are:
    3-D files are copied byte by byte, 4-D files are split by channel. Label maps become
    uint8 with the numbers of `label_map` where these differ from the file's, or where
    the file does not hold plain integers. A phantom is generated from its config and
    `seed`. Raises UserError for a file that cannot be read or does not hold the case.
    """
    if case.source == "phantom":
        assert phantom_config is not None
        _write_phantom(case, phantom_config, seed, images_out, label_out)
        return
    assert case.label is not None
    if len(case.images) == 1 and case.source == "msd":
        _split_channels(case.images[0], images_out)
    elif len(case.images) == len(images_out):
        for source, target in zip(case.images, images_out, strict=True):
            _copy(source, target)
    else:
        raise UserError(
            f"{case.id} has {len(case.images)} channel files instead of "
            f"{len(images_out)}."
        )
    _write_label(case.label, label_out, label_map)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Tell the user which file could not be read."""
    import zlib

    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        yield
    except (
        OSError,
        EOFError,
        ValueError,
        zlib.error,
        ImageFileError,
        HeaderDataError,
    ) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Replace the file."
        ) from error


def _copy(source: str, target: str | os.PathLike[str]) -> None:
    with _reading(source):
        content = Path(source).read_bytes()
    if not source.endswith(".gz"):
        # Without a time in its header the packed file depends on the content alone.
        content = gzip.compress(content, 6, mtime=0)
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def _split_channels(source: str, targets: Sequence[str | os.PathLike[str]]) -> None:
    """A 3-D file for each volume of a 4-D one (x, y, z, channel): the same voxels."""
    import nibabel as nib

    with _reading(source):
        image: Any = nib.load(source)
        stored = image.dataobj.get_unscaled()
        slope, intercept = image.dataobj.slope, image.dataobj.inter
    if stored.ndim == 3:
        stored = stored[..., None]
    if stored.ndim != 4 or stored.shape[3] != len(targets):
        raise UserError(
            f"{source} has the shape {stored.shape}, which is not that of "
            f"{len(targets)} channels."
        )
    for channel, target in enumerate(targets):
        volume = type(image)(stored[..., channel], image.affine, image.header)
        if (slope, intercept) != (1, 0):
            # nibabel then writes the values unchanged, beside their scaling.
            volume.header.set_slope_inter(slope, intercept)
        with atomic_path(target) as temporary:
            nib.save(volume, temporary)


def _write_label(
    source: str, target: str | os.PathLike[str], label_map: Mapping[int, int]
) -> None:
    import nibabel as nib
    import numpy as np

    with _reading(source):
        image: Any = nib.load(source)
        scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
        plain = image.get_data_dtype().kind in "ui" and not scaled
    if plain and all(native == ours for native, ours in label_map.items()):
        _copy(source, target)
        return
    with _reading(source):
        native_values = np.asanyarray(image.dataobj)
    labels = np.zeros(native_values.shape, np.uint8)
    known = np.zeros(native_values.shape, bool)
    for native, ours in label_map.items():
        where = native_values == native
        labels[where] = ours
        known |= where
    if not known.all():
        strange = np.unique(native_values[~known])[:10].tolist()
        raise UserError(
            f"{source} holds the values {strange}, which no label has "
            f"({', '.join(map(str, label_map))})."
        )
    header = image.header.copy()
    header.set_data_dtype(np.uint8)
    with atomic_path(target) as temporary:
        nib.save(type(image)(labels, image.affine, header), temporary)


def _write_phantom(
    case: Case,
    config: Mapping[str, Any],
    seed: int,
    images_out: Sequence[str | os.PathLike[str]],
    label_out: str | os.PathLike[str],
) -> None:
    import SimpleITK as sitk  # noqa: N813

    made = phantom.generate(case.id, config, case.planted, seed)
    arrays = [*made.image, made.label]
    for array, target in zip(arrays, [*images_out, label_out], strict=True):
        image = sitk.GetImageFromArray(array)
        # SimpleITK counts axes as x, y, z; the arrays and the config as z, y, x.
        image.SetSpacing([float(mm) for mm in reversed(made.spacing)])
        with atomic_path(target) as temporary:
            sitk.WriteImage(image, str(temporary), True)
