"""Scans of one patient are recognised, and never get different roles."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.cohort.folders import config, msd_folder, nnunet_folder, texts, touch

from casesim.cohort.loading import load_cohort
from casesim.cohort.patients import find_patients
from casesim.cohort.selection import Selection, choose_refits, select
from casesim.errors import UserError


def test_ids_of_brats_and_bids_name_the_patient() -> None:
    ids = ["BraTS-GLI-00005-100", "BraTS-GLI-00005-101", "BraTS-MEN-00005-000"]
    ids += ["BraTS-MEN-RT-0004-2", "UPENN-GBM-00002_21", "UCSF-PDGM-0429_FU003d"]
    ids += ["UCSF-PDGM-0429", "BraTS-SSA-00002-000", "BraTS2021_00002"]
    ids += ["sub-01_ses-02", "sub-01", "BraTS20_Training_001", "x-100", "sub-02_T1w"]
    assert find_patients(ids, None) == {
        "BraTS-GLI-00005-100": "BraTS-GLI-00005",
        "BraTS-GLI-00005-101": "BraTS-GLI-00005",
        "BraTS-MEN-00005-000": "BraTS-MEN-00005",
        "BraTS-MEN-RT-0004-2": "BraTS-MEN-RT-0004",
        "UPENN-GBM-00002_21": "UPENN-GBM-00002",
        "UCSF-PDGM-0429_FU003d": "UCSF-PDGM-0429",
        "UCSF-PDGM-0429": "UCSF-PDGM-0429",
        "BraTS-SSA-00002-000": "BraTS-SSA-00002",
        "BraTS2021_00002": "BraTS2021_00002",
        "sub-01_ses-02": "sub-01",
        "sub-01": "sub-01",
        "sub-02_T1w": "sub-02",
        # One scan for each patient, or of no known standard.
        "BraTS20_Training_001": "BraTS20_Training_001",
        "x-100": "x-100",
    }


@pytest.mark.parametrize(
    ("expression", "patient"),
    [
        (r"^(\w+)-", "anna"),
        (r"^[a-z]+", "anna"),
        (r"scan(\d)-of-(?P<patient>\w+)", "berta"),
    ],
)
def test_a_regular_expression_names_the_patient(expression: str, patient: str) -> None:
    case = "scan2-of-berta" if patient == "berta" else "anna-2"
    assert find_patients([case], expression) == {case: patient}


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("(", r"cohort\.patient '\(' is no regular expression"),
        (r"^(a)-", r"finds no patient in 2 of 3 cases: b-1, c"),
        (r"^(x?)", r"finds no patient in 3 of 3 cases"),
    ],
)
def test_an_expression_that_does_not_fit(expression: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_patients(["a-1", "b-1", "c"], expression)
    if expression != "(":
        found = find_patients(["a-1", "b-1", "c"], expression, complete=False)
        assert found["c"] == "c"


@pytest.mark.parametrize("ending", ["tsv", "csv"])
def test_a_table_names_the_patient(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"patients.{ending}"
    lines = [["site", "case", "patient"], ["1", "a", "p"], ["2", "b", "p"]]
    text = "\n".join(("\t" if ending == "tsv" else ",").join(line) for line in lines)
    # As spreadsheet programs write it: with a byte order mark.
    path.write_text(f"\ufeff{text}\n", encoding="utf-8")
    assert find_patients(["a", "b"], str(path)) == {"a": "p", "b": "p"}
    with pytest.raises(UserError, match=r"lacks 1 of 3 cases: c"):
        find_patients(["a", "b", "c"], str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("case,name\na,p\n", "must have the columns 'case' and 'patient'; it has case"),
        ("", "it has none"),
        ("case,patient\na,p\na,q\n", "gives the case a two patients: p and q"),
        ("case,patient\na,\n", "lacks 1 of 1 cases: a"),
    ],
)
def test_tables_that_do_not_fit(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "patients.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        find_patients(["a"], str(path))


SCANS = st.dictionaries(
    st.text("abcXYZ019", min_size=1, max_size=4), st.integers(0, 5), min_size=3
)


def patients_by_role(chosen: Selection, patients: dict[str, str]) -> list[set[str]]:
    roles = (chosen.pool, chosen.held_out, chosen.calibration)
    return [{patients[case] for case in role} for role in roles]


@given(SCANS, st.data(), st.integers(0, 2))
def test_no_patient_has_two_roles(
    numbers: dict[str, int], data: st.DataObject, seed: int
) -> None:
    patients = {case: f"patient {number}" for case, number in numbers.items()}
    ids = sorted(patients)
    pool, held_out, calibration = (
        data.draw(st.integers(low, len(ids))) for low in (1, 0, 0)
    )
    wish = (ids, pool, 1, held_out, seed)
    chosen = select(*wish, calibration=calibration, patients=patients)
    sides = patients_by_role(chosen, patients)
    assert sum(map(len, sides)) == len(set().union(*sides))
    # What is missing is missing because no patient is left, and is said.
    got = [len(r) for r in (chosen.pool, chosen.held_out, chosen.calibration)]
    assert bool(chosen.problems) == (got != [pool, held_out, calibration])
    shuffled = data.draw(st.permutations(ids))
    assert chosen == select(
        shuffled, *wish[1:], calibration=calibration, patients=patients
    )
    if calibration and not chosen.problems:
        without = select(*wish, patients=patients)
        assert (without.pool, without.train, without.held_out) == (
            chosen.pool,
            chosen.train,
            chosen.held_out,
        )
        fewer = select(*wish, calibration=calibration - 1, patients=patients)
        assert set(fewer.calibration) < set(chosen.calibration)


def test_scans_of_a_patient_follow_each_other() -> None:
    ids = [f"p{patient}-{scan}" for patient in range(6) for scan in range(3)]
    patients = {case: case[:2] for case in ids}
    chosen = select(ids, 6, 4, 6, 0, patients=patients)
    assert [len({patients[i] for i in r}) for r in (chosen.pool, chosen.held_out)] == [
        2,
        2,
    ]
    # A pool that ends within a patient leaves the rest of the patient unused.
    chosen = select(ids, 7, 4, 11, 0, patients=patients)
    assert (len(chosen.pool), len(chosen.held_out)) == (7, 9)
    assert "Too few cases for 11 held-out cases" in chosen.problems[0].problem
    assert {patients[i] for i in choose_refits(ids, 3, 0, patients)} == {
        patients[choose_refits(ids, 1, 0, patients)[0]]
    }


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"pool": ["p1-1", "p2-1"], "held_out": ["p1-2"]},
            "cohort.pool and cohort.held_out share patients: p1-1 and p1-2 are of p1",
        ),
        (
            {"pool": 2, "held_out": ["p1-2"], "calibration": ["p1-1"]},
            "cohort.held_out and cohort.calibration share patients: p1-2 and p1-1",
        ),
        (
            {"pool": ["p1-1"], "held_out": 1, "calibration": ["p1-1"]},
            "In cohort.pool and in cohort.calibration: p1-1. Name each case",
        ),
    ],
)
def test_lists_that_split_a_patient_are_refused(
    tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    ids = ["p1-1", "p1-2", "p2-1", "p3-1", "p4-1"]
    root = msd_folder(tmp_path, ids)
    with pytest.raises(UserError, match=message):
        load_cohort(config("msd", root, patient="^p[0-9]", **keys))


def test_time_points_of_brats_do_not_leak(tmp_path: Path) -> None:
    ids = [f"BraTS-GLI-{n:05d}-{100 + t}" for n in range(4) for t in range(3)]
    root = nnunet_folder(tmp_path / "raw", ids)
    for seed in range(5):
        cohort = load_cohort(config("nnunet", root, pool=6, held_out=6, seed=seed))
        assert not cohort.problems
        pool, held_out = (
            {cohort.patients[case] for case in role}
            for role in (cohort.pool, cohort.held_out)
        )
        assert len(pool) == len(held_out) == 2
        assert not pool & held_out


def test_a_new_case_of_a_known_patient_is_said(tmp_path: Path) -> None:
    root = msd_folder(tmp_path / "data", ["p1-1", "p2-1", "p3-1"])
    new = tmp_path / "new"
    touch(*(new / f"{case}.nii.gz" for case in ("p1-2", "p9-1", "other")))
    cohort = load_cohort(config("msd", root, new=str(new), patient="^p[0-9]"))
    assert cohort.new == ["other", "p1-2", "p9-1"]
    assert cohort.patients["other"] == "other"
    warnings = [p for p in cohort.problems if p.severity == "warning"]
    assert [p.case for p in warnings] == ["p1-2"], texts(cohort)
    assert "The new case is of the patient p1, as the" in warnings[0].problem
