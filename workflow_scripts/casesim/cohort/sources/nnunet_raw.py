"""nnU-Net's raw format: one file for each case and channel."""

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from casesim.cohort import formats
from casesim.cohort.problem import WHOLE_COHORT, Problem
from casesim.cohort.sources.dataset_json import (
    channel_names,
    labels_and_targets,
    read_dataset_json,
)
from casesim.cohort.sources.found import (
    CONVERT_V1,
    Candidate,
    Found,
    blame_endings,
    blame_second_label,
    data_folder,
    image_files,
    is_split,
    list_label_maps,
    new_folder,
    stem,
)
from casesim.errors import UserError


def read(config: Mapping[str, Any]) -> Found:
    """nnU-Net's raw format: imagesTr/<case>_0000.nii.gz, …, labelsTr/<case>.nii.gz.

    Cases named in `dataset.json` under "dataset" (nnU-Net's
    `get_filenames_of_train_images_and_targets`) are taken from there.
    """
    root = data_folder(config)
    path = root / "dataset.json"
    content = read_dataset_json(root, "nnunet")
    if "channel_names" not in content and "modality" in content:
        if is_split(image_files(root / "imagesTr")):
            raise UserError(
                f"{path} is that of nnU-Net's version 1 (it has 'modality', not "
                f"'channel_names'). {CONVERT_V1}"
            )
        raise UserError(
            f"{path} is the Decathlon's (it has 'modality', not 'channel_names'): set "
            "cohort.source: msd if the images are 4-D."
        )
    ending = content.get("file_ending", ".nii.gz")
    if ending not in formats.ENDINGS:
        meant = f".{str(ending).lower().lstrip('.')}"
        if meant in formats.ENDINGS:
            raise UserError(f"{path}: file_ending is {ending}; write {meant}.")
        raise UserError(
            f"{path}: file_ending is {ending}; {', '.join(formats.ENDINGS)} can be "
            "read. Convert the images (without loss: label maps must keep their "
            "numbers)."
        )
    if not isinstance(content.get("labels"), dict):
        raise UserError(f'{path}: "labels" must be an object.')
    channels = channel_names(path, content, "channel_names")
    labels, targets = labels_and_targets(str(path), content)
    if isinstance(content.get("dataset"), dict):
        candidates = _listed_cases(path, content["dataset"], len(channels))
        problems: list[Problem] = []
    else:
        candidates, problems = _scanned_cases(root, ending, len(channels))
    return Found(
        candidates,
        channels,
        labels,
        {n: n for n in (*labels.values(), targets.ignore) if n is not None},
        problems,
        f"Expected: {root}/imagesTr/<case>_0000{ending} and "
        f"{root}/labelsTr/<case>{ending}.",
        targets,
    )


def read_new(config: Mapping[str, Any], channels: int) -> list[Candidate]:
    """The cases of `cohort.new`: one file for each channel, no label."""
    folder = new_folder(config)
    names = image_files(folder, endings=formats.ENDINGS)
    endings = sorted({name[len(stem(name)) :] for name in names})
    if len(endings) > 1:
        raise UserError(
            f"cohort.new {folder} holds both {' and '.join(endings)} files. Give all "
            "of them one ending."
        )
    ending = endings[0] if endings else formats.NIFTI[0]
    numbers, strays = _channel_numbers(folder, ending)
    if strays:
        raise UserError(
            f"{strays[0]} in cohort.new is no channel of a case. Name it "
            f"<case>_0000{ending}, _0001, … or take it away."
        )
    return [
        _with_channels(case, folder, ending, numbers[case], channels)
        for case in sorted(numbers)
    ]


def _scanned_cases(
    root: Path, ending: str, channels: int
) -> tuple[list[Candidate], list[Problem]]:
    images, label_maps = root / "imagesTr", root / "labelsTr"
    odd: list[Path] = []
    numbers, strays = _channel_numbers(images, ending, odd)
    found = list_label_maps(label_maps, odd, _alike(ending))
    problems = blame_endings(odd) + [
        Problem(
            WHOLE_COHORT,
            "warning",
            f"{path} is no channel of a case.",
            f"Name it <case>_0000{ending}, _0001, … or take it away; it is not used.",
        )
        for path in strays
    ]
    candidates = []
    for case in sorted({*numbers, *found}):
        candidate = _with_channels(case, images, ending, numbers[case], channels)
        maps = found.get(case)
        candidate.label = str(label_maps / (maps[0] if maps else f"{case}{ending}"))
        if not maps:
            candidate.missing += (candidate.label,)
        blame_second_label(candidate, maps)
        candidates.append(candidate)
    return candidates, problems


def _alike(ending: str) -> tuple[str, ...]:
    """Endings of files that are looked at: packed NIfTI beside unpacked, say."""
    return formats.NIFTI if ending in formats.NIFTI else (ending,)


def _channel_numbers(
    folder: Path, ending: str, odd: list[Path] | None = None
) -> tuple[dict[str, set[int]], list[Path]]:
    """The channels that each case has a file of, and the files of no case."""
    numbers: dict[str, set[int]] = defaultdict(set)
    strays = []
    for name in image_files(folder, odd, _alike(ending)):
        match = re.fullmatch(r"(.+)_(\d{4})", stem(name))
        if match and name.endswith(ending):
            numbers[match[1]].add(int(match[2]))
        else:
            strays.append(folder / name)
    return numbers, strays


def _with_channels(
    case: str, folder: Path, ending: str, numbers: set[int], channels: int
) -> Candidate:
    """A case with one file for each channel; missing and surplus ones are noted.

    A picture may hold several channels, its colours, so that there may be fewer files.
    """
    last = channels - 1
    if ending in formats.PICTURES:
        last = min(last, max(numbers, default=0))
    files = tuple(str(folder / f"{case}_{i:04d}{ending}") for i in range(last + 1))
    missing = tuple(file for i, file in enumerate(files) if i not in numbers)
    candidate = Candidate(case, files, missing=missing)
    if surplus := sorted(numbers - set(range(channels))):
        names = ", ".join(f"{case}_{i:04d}{ending}" for i in surplus)
        candidate.blame(
            "error",
            f"Wrong channel count: {names} in {folder}, but dataset.json names "
            f"{channels} channels.",
            "Remove the surplus files, or name their channels in channel_names.",
        )
    return candidate


def _listed_cases(
    path: Path, dataset: Mapping[str, Any], channels: int
) -> list[Candidate]:
    listings: dict[Path, set[str]] = {}
    candidates = []
    for case, entry in dataset.items():
        try:
            if not isinstance(entry["images"], list):
                raise TypeError
            paths = [os.path.expandvars(p) for p in (*entry["images"], entry["label"])]
        except (KeyError, TypeError):
            raise UserError(
                f"{path}: \"dataset\" must give 'images' (a list) and 'label' for "
                f"{case}."
            ) from None
        files = [Path(os.path.normpath(path.parent / p)) for p in paths]
        for file in files:
            if file.parent not in listings:
                listings[file.parent] = set(
                    image_files(file.parent, endings=formats.ENDINGS)
                )
        missing = [str(f) for f in files if f.name not in listings[f.parent]]
        images = tuple(map(str, files[:-1]))
        candidate = Candidate(case, images, str(files[-1]), tuple(missing))
        in_colours = images and all(map(formats.is_picture, images))
        if len(images) > channels or (len(images) < channels and not in_colours):
            candidate.blame(
                "error",
                f"Wrong channel count: {path} lists {len(images)} images for the case, "
                f"but names {channels} channels.",
                "List one image for each channel.",
            )
        candidates.append(candidate)
    return candidates
