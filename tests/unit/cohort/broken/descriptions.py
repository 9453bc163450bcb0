"""What is said of the files: names of cases, `dataset.json`, and the config."""

import json
from typing import Any

from unit.cohort.broken.kinds import add, kind
from unit.cohort.checks.broken import Folder, image_of, label_of, save
from unit.cohort.folders import MSD_JSON

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
