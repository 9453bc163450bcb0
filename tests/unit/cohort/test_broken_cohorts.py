"""Every kind of broken cohort that is named; docs/reliability.md counts them.

Each entry breaks a sound nnU-Net raw folder (or its config) and says which words must
come out: of an error or warning of the check, which names the case or file and how to
mend it, or of the `UserError` that ends the start.
"""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from unit.cohort.checks.broken import (
    SHAPE,
    Folder,
    affine_of,
    cut,
    image_of,
    label_of,
    moved,
    save,
)
from unit.cohort.folders import MSD_JSON, ROOT

from casesim.cohort.checks.across_cases import check_cohort
from casesim.cohort.loading import load_cohort
from casesim.cohort.problem import Problem
from casesim.errors import UserError

Break = Callable[[Folder], Any]
KINDS: dict[str, tuple[Break, str]] = {}


def kind(name: str, message: str) -> Callable[[Break], Break]:
    def keep(function: Break) -> Break:
        assert name not in KINDS
        KINDS[name] = (function, message)
        return function

    return keep


def add(name: str, message: str, function: Break) -> None:
    kind(name, message)(function)


def voxels(value: float, where: Any = (4, 3, 2), dtype: Any = np.float32) -> Any:
    image = image_of(0).astype(dtype)
    image[where] = value
    return image


def labelled(value: float, dtype: Any = np.float32) -> Any:
    label = label_of(0).astype(dtype)
    label[2, 2, 2] = value
    return label


# Files

add("an image is missing", "is missing", lambda f: f.image(2).unlink())
add("a label map is missing", "is missing", lambda f: f.label(2).unlink())


@kind("a link to nowhere", "is a link to nowhere")
def _(f: Folder) -> None:
    f.label(0).unlink()
    f.label(0).symlink_to(f.root / "gone")


@kind("a link to itself", "is a link to nowhere")
def _(f: Folder) -> None:
    f.label(0).unlink()
    f.label(0).symlink_to(f.label(0))


@kind("a folder in the place of a file", "is missing")
def _(f: Folder) -> None:
    f.image(1).unlink()
    f.image(1).mkdir()


def content(name: str, message: str, made: Callable[[bytes], bytes]) -> None:
    def write(f: Folder) -> None:
        f.image(3, 1).write_bytes(made(f.image(3, 1).read_bytes()))

    add(name, message, write)


content("an empty file", "is empty (0 bytes)", lambda b: b"")
content("a text in place of an image", "no gzip file", lambda b: b"hello, world")
content("a damaged gzip file", "is damaged", lambda b: b[:90] + b"\xff" * 9 + b[99:])
content("a gzip file of no image", "not a NIfTI", lambda b: gzip.compress(b"x" * 999))
content("a file without its last bytes", "is cut off", lambda b: b[:-8])
content(
    "fewer voxels than the header says",
    "fewer voxels",
    lambda b: gzip.compress(gzip.decompress(b)[:-100]),
)
content(
    "a pointer of git-lfs", "is a pointer", lambda b: b"version https://git-lfs.x/v1"
)
content("a pointer of git-annex", "is a pointer", lambda b: b"/annex/objects/SHA256E-s")
add("a file that is cut off", "is cut off", lambda f: cut(f.label(1), 0.5))


@kind("an image in colours", "not numbers")
def _(f: Folder) -> None:
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    save(f.image(0), rgb)


add(
    "an image of complex numbers",
    "not numbers",
    lambda f: save(f.image(0), np.ones(SHAPE, np.complex64)),
)


@kind("axes that are not at right angles", "is refused by SimpleITK")
def _(f: Folder) -> None:
    skewed = affine_of()
    skewed[0, 1] = 0.7
    image = nib.Nifti1Image(image_of(0), skewed)
    image.set_qform(affine_of(), 0)
    nib.save(image, f.image(0))


@kind("an ending in capitals", "is not written in lower case")
def _(f: Folder) -> None:
    f.label(0).rename(f.root / "labelsTr/case_0.NII.GZ")


@kind("a label map packed and unpacked", "Two label maps for one case")
def _(f: Folder) -> None:
    save(f.root / "labelsTr/case_0.nii", label_of(0))


@kind("an unpacked file beside packed ones", "is no channel of a case")
def _(f: Folder) -> None:
    save(f.root / "imagesTr/case_0_0000.nii", image_of(0))


add(
    "a file that is no channel",
    "is no channel of a case",
    lambda f: save(f.root / "imagesTr/notes.nii.gz", image_of(7)),
)

# Channels and dimensions

add("a surplus channel", "Wrong channel", lambda f: save(f.image(0, 2), image_of(0, 2)))
for _name, _shape in {
    "a channel file of four dimensions": (*SHAPE, 2),
    "a channel file of a single slice in 2-D": SHAPE[:2],
    "a channel file of five dimensions": (*SHAPE, 1, 3),
}.items():

    def _flat(f: Folder, shape: Any = _shape) -> None:
        save(f.image(0), np.ones(shape, np.int16))

    add(_name, "Wrong channel count", _flat)
add(
    "a label map of four dimensions",
    "has 4 dimensions",
    lambda f: save(f.label(0), np.ones((*SHAPE, 2), np.uint8)),
)

# Values

for _name, _image, _message in [
    ("NaN in an image", voxels(np.nan), "has 1 NaN or infinite voxels"),
    ("infinity in an image", voxels(np.inf), "has 1 NaN or infinite voxels"),
    ("a voxel of 3e20", voxels(3e20), "3e+20 in one voxel (index 4, 3, 2)"),
    ("a voxel of 1e7", voxels(1e7), "no contrast left"),
    ("a voxel of -1e7", voxels(-1e7), "no contrast left"),
    ("a background of -3e38", voxels(-3e38, np.s_[:5]), "too large to be normalised"),
    ("a background of 1e36", voxels(1e36, np.s_[:5]), "too large to be normalised"),
    ("a background of -1e6", voxels(-1e6, np.s_[:5]), "no contrast left"),
    ("values beyond 32 bits", voxels(1e300, dtype=np.float64), "32-bit numbers cannot"),
    ("a constant channel", np.full(SHAPE, 7, np.int16), "is constant"),
    ("values of 1e-300", image_of(0) * 1e-300, "all the same as 32-bit numbers"),
    ("values of 1e-30", image_of(0) * 1e-30, "too little to be normalised"),
]:

    def _values(f: Folder, image: Any = _image) -> None:
        save(f.image(0), image)

    add(_name, _message, _values)


@kind("a scaling in the header beyond 32 bits", "32-bit numbers cannot")
def _(f: Folder) -> None:
    image = nib.nifti1.Nifti1Image(image_of(0), affine_of())
    image.header.set_slope_inter(1e38, 0)
    nib.save(image, f.image(0))
    # nibabel writes voxels of its own choice with a scaling of its own.
    content = bytearray(gzip.decompress(f.image(0).read_bytes()))
    content[112:120] = struct.pack("<ff", 1e38, 0)
    f.image(0).write_bytes(gzip.compress(bytes(content)))


@kind("one value wherever there is an image", "nothing of it is left")
def _(f: Folder) -> None:
    head = np.add.outer(np.arange(SHAPE[0]), np.arange(SHAPE[1]))[..., None] < 9
    save(f.image(0, 0), np.broadcast_to(9 * head, SHAPE).astype(np.uint8))
    save(f.image(0, 1), (head * (image_of(0, 1) + 1)).astype(np.int16))
    save(f.label(0), (head * label_of(0)).astype(np.uint8))


@kind("images without anything in them", "No brain voxels")
def _(f: Folder) -> None:
    for channel in range(2):
        save(f.image(3, channel), np.zeros(SHAPE, np.int16))


add(
    "colours that are none",
    "colours from 0 to 255",
    lambda f: f.describe(channel_names={"0": "rgb_to_0_1", "1": "T1w"}),
)
add(
    "large values that nothing normalises",
    "nothing normalises them",
    lambda f: f.describe(channel_names={"0": "noNorm", "1": "T1w"}),
)

# Labels

for _name, _label, _message in [
    ("NaN in a label map", labelled(np.nan), "has 1 NaN or infinite voxels"),
    ("a label that is not declared", labelled(7), "outside the declared ones"),
    ("a negative label", labelled(-1), "-1 (1 voxels)"),
    ("labels that were interpolated", labelled(0.5), "no integers: 0.5"),
    ("an empty label map", np.zeros(SHAPE, np.uint8), "is an empty label map"),
]:

    def _labels(f: Folder, label: Any = _label) -> None:
        save(f.label(0), label)

    add(_name, _message, _labels)


@kind("labels that the header scales", "5 (453 voxels)")
def _(f: Folder) -> None:
    stored = bytearray(gzip.decompress(f.label(0).read_bytes()))
    stored[112:120] = struct.pack("<2f", 0, 5)
    f.label(0).write_bytes(gzip.compress(stored))


@kind("labels outside the brain", "voxels outside the brain")
def _(f: Folder) -> None:
    label = label_of(0)
    label[0, 0, :5] = 1
    save(f.label(0), label)


@kind("a label that no case has", "No pool case has the label rim (3)")
def _(f: Folder) -> None:
    f.describe(labels={"background": 0, "edema": 1, "core": 2, "rim": 3})


# Place in space

for _name, _changes, _message in [
    ("a label map with another origin", {"origin": 0.5}, "origin (mm) -10.5"),
    ("a label map with another spacing", {"spacing": 1.01}, "spacing (mm) 1 1.01 1"),
    ("a label map that is turned", {"angle": 0.01}, "direction"),
]:

    def _place(f: Folder, changes: Any = _changes) -> None:
        save(f.label(1), label_of(1), moved(**changes))

    add(_name, _message, _place)
add(
    "a channel of another shape",
    "shape 8 8 7 instead of 9 8 7",
    lambda f: save(f.image(1, 1), image_of(1, 1)[1:]),
)
add(
    "a label map of another shape",
    "shape 8 8 7 instead of 9 8 7",
    lambda f: save(f.label(1), label_of(1)[1:]),
)


def _spacing(factor: float, *cases: int) -> Break:
    def write(f: Folder) -> None:
        for case in cases:
            for channel in range(2):
                save(f.image(case, channel), image_of(case, channel), affine_of(factor))
            save(f.label(case), label_of(case), affine_of(factor))

    return write


add("different spacings", "2 different spacings", _spacing(2, 3))
add("a case in another unit", "100 times as much or as little", _spacing(100, 3))
add(
    "all cases in metres", "mm large: its voxels have 0.001", _spacing(0.001, *range(6))
)

# Cases against each other


@kind("one image under two names", "case_2 and case_5 have the same voxels")
def _(f: Folder) -> None:
    for channel in range(2):
        save(f.image(2, channel), image_of(5, channel))


add(
    "one channel of another case",
    "have the same voxels in T1w",
    lambda f: save(f.image(2, 1), image_of(5, 1)),
)
add(
    "one channel twice",
    "FLAIR, T1w are the same",
    lambda f: save(f.image(2, 1), image_of(2)),
)
add(
    "one label map for two cases",
    "have the same label map",
    lambda f: save(f.label(0), label_of(1)),
)

# Names of cases

for _name, _id, _message in [
    ("a name that is not ASCII", "gliöm", "is not plain ASCII"),
    ("a name with a space", "case x", "has characters other than letters"),
    ("a name that starts with a dash", "-x", "starts with a dot or a dash"),
    ("a name that is too long", "x" * 101, "is longer than 100 characters"),
    ("a name that ends in _seg", "x_seg", "ends in _seg"),
    ("names that differ in capitals alone", "CASE_0", "differs from another only by"),
]:

    def _names(f: Folder, case: str = _id) -> None:
        save(f.root / f"labelsTr/{case}.nii.gz", label_of(0))

    add(_name, _message, _names)

# dataset.json

add(
    "no dataset.json",
    "has no dataset.json",
    lambda f: (f.root / "dataset.json").unlink(),
)


def described(name: str, message: str, text: str) -> None:
    def write(f: Folder) -> None:
        (f.root / "dataset.json").write_text(text)

    add(name, message, write)


described("a dataset.json that is no JSON", "not readable JSON", "{")
described("a dataset.json that holds a list", "must hold a JSON object", "[]")
described("nnU-Net's version 1", "nnUNetv2_convert_old_nnUNet", json.dumps(MSD_JSON))
for _name, _json, _message in [
    ("labels that are a list", {"labels": ["a"]}, '"labels" must be an object'),
    ("label numbers with gaps", {"labels": {"background": 0, "a": 2}}, "without gaps"),
    ("no background", {"labels": {"air": 0, "a": 1}}, "must be called 'background'"),
    (
        "a label numbered 3.7",
        {"labels": {"background": 0, "a": 3.7}},
        "no whole number",
    ),
    ("a reserved label name", {"labels": {"background": 0, "mean": 1}}, "reserved"),
    (
        "label names too much alike",
        {"labels": {"background": 0, "a b": 1, "a/b": 2}},
        "too much like",
    ),
    ("channels without names", {"channel_names": {}}, "must name the channels"),
    (
        "channels numbered from 1",
        {"channel_names": {"1": "a"}},
        "must name the channels",
    ),
    ("images of another format", {"file_ending": ".dcm"}, "Convert the images"),
    ("an ending without its dot", {"file_ending": "NII.gz"}, "write .nii.gz"),
    (
        "cases listed without images",
        {"dataset": {"x": {"label": "labelsTr/x.nii.gz"}}},
        "must give 'images'",
    ),
]:

    def _json_changes(f: Folder, changes: Any = _json) -> None:
        f.describe(**changes)

    add(_name, _message, _json_changes)


@kind("no folder of images", "has no folder imagesTr")
def _(f: Folder) -> None:
    (f.root / "imagesTr").rename(f.root / "images")


# The config

for _name, _config, _message in [
    ("no path", {"path": None}, "needs cohort.path"),
    ("a path that is not there", {"path": "/no/such"}, "is not a folder"),
    ("a case that does not exist", {"pool": ["case_11"]}, "did you mean case_1"),
    (
        "a case that trains and judges",
        {"pool": ["case_1", "case_2"], "held_out": ["case_2"], "train_cases": 1},
        "In cohort.pool and in cohort.held_out: case_2",
    ),
    (
        "a train case outside the pool",
        {"pool": ["case_1"], "train_cases": ["case_2"]},
        "but not in the pool: case_2",
    ),
    ("more train cases than pool cases", {"train_cases": 5}, "cohort.train_cases is 5"),
    ("too few cases", {"held_out": 9}, "Too few cases for 9 held-out cases"),
    (
        "too few calibration cases",
        {"calibration": 9},
        "Too few cases for 9 calibration",
    ),
    (
        "a case named twice",
        {"pool": ["case_1", "case_1", "case_2", "case_3"]},
        "names the case 2 times",
    ),
    (
        "lists that split a patient",
        {
            "patient": "(cas)",
            "pool": ["case_1", "case_2", "case_3"],
            "held_out": ["case_4"],
        },
        "share patients: ",
    ),
    ("an expression that is none", {"patient": "("}, "is no regular expression"),
    (
        "an expression that does not fit",
        {"patient": "^x"},
        "finds no patient in 6 of 6",
    ),
    ("a table of patients that is not there", {"patient": "no.tsv"}, "cannot be read"),
    ("a folder of new cases that is not there", {"new": "/no"}, "is not a folder"),
]:

    def _config_changes(f: Folder, changes: Any = _config) -> Any:
        return changes

    add(_name, _message, _config_changes)


@kind("a new case called as a labelled one", "is called as a case of the data set")
def _(f: Folder) -> dict[str, Any]:
    for case in (0, 7):
        for channel in range(2):
            path = f.root / f"imagesTs/case_{case}_{channel:04d}.nii.gz"
            save(path, image_of(20 + case, channel))
    return {"new": str(f.root / "imagesTs")}


@kind("a new case of a known patient", "The new case is of the patient case")
def _(f: Folder) -> dict[str, Any]:
    for channel in range(2):
        path = f.root / f"imagesTs/case_7_{channel:04d}.nii.gz"
        save(path, image_of(20, channel))
    patients = "".join(f"case_{i},p{i}\n" for i in range(6))
    table = f.root / "patients.csv"
    table.write_text(f"case,patient\n{patients}case_7,case\n".replace(",p0", ",case"))
    changes = {"pool": 5, "held_out": 1, "patient": str(table)}
    return {"new": str(f.root / "imagesTs"), **changes}


@pytest.mark.parametrize("name", KINDS)
def test_it_is_named(name: str, tmp_path: Path) -> None:
    break_it, message = KINDS[name]
    folder = Folder(tmp_path / "raw")
    changes = break_it(folder) or {}
    try:
        problems = check_cohort(load_cohort({**folder.config, **changes}), 1)
    except UserError as error:
        problems = [Problem("(config)", "error", str(error), "said with it")]
    named = [problem for problem in problems if message in problem.problem]
    assert named, "\n".join(problem.problem for problem in problems)
    assert all(problem.case and problem.how_to_fix for problem in named)


def test_the_documentation_counts_them() -> None:
    text = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    assert len(KINDS) >= 60
    assert f"{len(KINDS)} kinds of broken cohorts" in text
