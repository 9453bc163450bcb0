"""nnU-Net's raw format: one file for each case and channel."""

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from casesim.cohort.problem import WHOLE_COHORT, Problem
from casesim.cohort.sources.dataset_json import (
    channel_names,
    label_numbers,
    read_dataset_json,
)
from casesim.cohort.sources.found import (
    FILE_ENDINGS,
    Candidate,
    Found,
    blame_second_label,
    data_folder,
    list_label_maps,
    nifti_files,
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
    channels = channel_names(path, content, "channel_names")
    labels = label_numbers(str(path), content["labels"])
    if isinstance(content.get("dataset"), dict):
        candidates = _listed_cases(path, content["dataset"], len(channels))
        problems: list[Problem] = []
    else:
        candidates, problems = _scanned_cases(root, ending, len(channels))
    return Found(
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
) -> tuple[list[Candidate], list[Problem]]:
    images, label_maps = root / "imagesTr", root / "labelsTr"
    problems = []
    numbers: dict[str, set[int]] = defaultdict(set)
    for name in nifti_files(images):
        match = re.fullmatch(r"(.+)_(\d{4})", stem(name))
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
    found = list_label_maps(label_maps)
    candidates = []
    for case in sorted({*numbers, *found}):
        files = tuple(str(images / f"{case}_{i:04d}{ending}") for i in range(channels))
        maps = found.get(case)
        label = str(label_maps / (maps[0] if maps else f"{case}{ending}"))
        missing = [file for i, file in enumerate(files) if i not in numbers[case]]
        missing += [] if maps else [label]
        candidate = Candidate(case, files, label, tuple(missing))
        blame_second_label(candidate, maps)
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
) -> list[Candidate]:
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
                listings[file.parent] = set(nifti_files(file.parent))
        missing = [str(f) for f in files if f.name not in listings[f.parent]]
        images = tuple(map(str, files[:-1]))
        candidate = Candidate(case, images, str(files[-1]), tuple(missing))
        if len(images) != channels:
            candidate.blame(
                "error",
                f"Wrong channel count: {path} lists {len(images)} images for the case, "
                f"but names {channels} channels.",
                "List one image for each channel.",
            )
        candidates.append(candidate)
    return candidates
