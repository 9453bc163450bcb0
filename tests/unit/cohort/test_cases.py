"""A case as a record, a cohort as a table."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from unit.cohort.folders import PHANTOM, config, msd_folder

from casesim.cohort.cases import Case
from casesim.cohort.loading import load_cohort
from casesim.cohort.table import write_cohort


def test_records_and_table(tmp_path: Path) -> None:
    cohort = load_cohort(config("msd", msd_folder(tmp_path, ["a", "b", "c"])))
    case = replace(cohort.cases[0], planted="swapped_labels", missing=("x",))
    assert Case.from_record(json.loads(json.dumps(case.as_record()))) == case
    write_cohort(cohort, "results/raw", tmp_path / "cohort.tsv")
    with (tmp_path / "cohort.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["case"] for row in rows] == ["a", "b", "c"]
    assert list(rows[0]) == [
        "case",
        "image",
        "label",
        "role",
        "train_case",
        "source",
        "planted",
        "patient",
    ]
    assert rows[1]["image"] == "results/raw/imagesTr/b_0000.nii.gz"
    assert rows[1]["label"] == "results/raw/labelsTr/b.nii.gz"
    assert [r["case"] for r in rows if r["role"] == "held_out"] == cohort.held_out
    assert [r["case"] for r in rows if r["train_case"] == "true"] == cohort.train


@pytest.mark.parametrize(
    ("defects", "controls", "planted"),
    [
        ({}, {"no_enhancement": 1}, False),
        ({"swapped_labels": 1}, {}, True),
        ({"corrupted_channel": 1}, {}, True),
    ],
)
def test_defects_are_planted_but_controls_are_none(
    defects: dict[str, int], controls: dict[str, int], planted: bool
) -> None:
    phantoms = {**PHANTOM, "defects": defects, "controls": controls}
    cohort = load_cohort(config("phantom", train_cases=2, phantom=phantoms))
    assert cohort.has_planted_defects is planted


def test_several_scans_of_a_patient(tmp_path: Path) -> None:
    """A patient may be called as another's case is: cases are called by cases."""
    cohort = load_cohort(config("msd", msd_folder(tmp_path, [*"abcd"]), pool=4))
    patients = {"a": "p", "b": "a", "c": "p", "d": "d"}
    cases = tuple(replace(case, patient=patients[case.id]) for case in cohort.cases)
    cohort = replace(cohort, cases=cases)
    assert cohort.scans_of_patients([*"dcba"]) == {"a": "a", "c": "a"}
    assert cohort.scans_of_patients([*"abd"]) == {}
