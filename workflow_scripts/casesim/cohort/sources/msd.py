"""Medical Segmentation Decathlon: one 4-D file for each case."""

import re
from collections import Counter
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
    """Medical Segmentation Decathlon: one 4-D file in imagesTr for each case."""
    root = data_folder(config)
    path = root / "dataset.json"
    content = read_dataset_json(root, "msd")
    if "modality" not in content and "channel_names" in content:
        raise UserError(
            f"{path} is nnU-Net's (it has channel_names): set cohort.source: nnunet."
        )
    names = content.get("labels")
    if not isinstance(names, dict):
        raise UserError(f'{path}: "labels" must be an object.')
    labels = label_numbers(
        str(path), {str(name): number for number, name in names.items()}
    )
    images, label_maps = root / "imagesTr", root / "labelsTr"
    odd: list[Path] = []
    found = list_label_maps(label_maps, odd)
    candidates = []
    names_of_images = image_files(images, odd)
    if is_split(names_of_images):
        raise UserError(
            f"{images} holds a file for each channel (_0000, …), not the Decathlon's "
            f"4-D images: this is nnU-Net's version 1. {CONVERT_V1}"
        )
    for name in names_of_images:
        label = found.pop(stem(name), None)
        candidates.append(_with_label(stem(name), images / name, label, label_maps))
    # A label map left over belongs to an image that is missing.
    for case, maps in found.items():
        image = str(images / f"{case}.nii.gz")
        candidate = Candidate(case, (image,), str(label_maps / maps[0]), (image,))
        candidates.append(candidate)
    return Found(
        candidates,
        channel_names(path, content, "modality"),
        labels,
        {number: number for number in labels.values()},
        [
            *blame_endings(odd),
            *_compare_training_list(path, content, {c.id for c in candidates}),
        ],
        f"Expected: {images}/<case>.nii.gz and {label_maps}/<case>.nii.gz.",
    )


def read_new(config: Mapping[str, Any], channels: int) -> list[Candidate]:
    """The cases of `cohort.new`: one 4-D file for each, no label."""
    folder = new_folder(config)
    return [
        Candidate(stem(name), (str(folder / name),)) for name in image_files(folder)
    ]


def _with_label(
    case: str, image: Path, maps: list[str] | None, folder: Path
) -> Candidate:
    label = str(folder / (maps[0] if maps else f"{case}.nii.gz"))
    candidate = Candidate(case, (str(image),), label, () if maps else (label,))
    blame_second_label(candidate, maps)
    return candidate


def _compare_training_list(
    path: Path, content: Mapping[str, Any], found: set[str]
) -> list[Problem]:
    """What MSD's list of training cases says against the files."""
    entries = content.get("training")
    listed = Counter(
        re.sub(r"(\.nii)?(\.gz)?$", "", name, flags=re.IGNORECASE)
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
        # Written on Windows, perhaps.
        for name in [re.split(r"[\\/]", str(entry.get("image", "")))[-1]]
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
