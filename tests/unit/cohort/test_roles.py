"""Calibration and new cases are there when asked for, and change nothing else."""

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from unit.cohort.folders import (
    PHANTOM,
    config,
    msd_folder,
    nnunet_folder,
    texts,
    touch,
)

from casesim.cohort.cases import Case
from casesim.cohort.checks.across_cases import check_cohort
from casesim.cohort.importing import import_case
from casesim.cohort.loading import load_cohort
from casesim.cohort.phantom import patient
from casesim.cohort.table import raw_images, raw_label, write_cohort
from casesim.errors import UserError


@pytest.mark.parametrize("held_out", [3, ["phantom_005"], 0])
def test_phantoms_of_the_other_roles_stay_who_they_are(held_out: Any) -> None:
    usual = load_cohort(config("phantom", pool=4, train_cases=3, held_out=held_out))
    asked = config("phantom", pool=4, train_cases=3, held_out=held_out)
    more = load_cohort({**asked, "calibration": 2, "new": 3})
    for role in ("pool", "train", "held_out", "test", "channel_names", "labels"):
        assert getattr(more, role) == getattr(usual, role)
    assert (usual.calibration, usual.new) == ([], [])
    assert len(more.calibration) == 2
    assert more.new == [f"phantom_new_00{i}" for i in (1, 2, 3)]
    assert more.labelled == sorted([*usual.ids, *more.calibration])
    assert more.ids == sorted([*more.labelled, *more.new])
    assert {c.is_labelled for c in more.cases if c.role == "new"} == {False}
    even_more = load_cohort({**asked, "calibration": 4})
    assert set(more.calibration) < set(even_more.calibration)
    assert not more.problems


def test_calibration_cases_named_one_by_one() -> None:
    asked = config("phantom", pool=2, held_out=1, calibration=["phantom_009"])
    cohort = load_cohort(asked)
    assert (cohort.held_out, cohort.calibration) == (["phantom_003"], ["phantom_009"])
    with pytest.raises(UserError, match=r"cohort\.calibration: phantom_9 \(did you"):
        load_cohort({**asked, "calibration": ["phantom_9"]})


def test_too_few_cases_for_calibration_are_said(tmp_path: Path) -> None:
    root = msd_folder(tmp_path, ["a", "b", "c", "d"])
    cohort = load_cohort(config("msd", root, calibration=2))
    assert len(cohort.calibration) == 1
    assert "Too few cases for 2 calibration cases (cohort.calibration)" in texts(cohort)
    assert "1 held out and 1 for calibration" in texts(cohort)


def new_msd(folder: Path) -> None:
    touch(folder / "imagesTs/x.nii.gz", folder / "imagesTs/y.nii.gz")


def new_nnunet(folder: Path) -> None:
    touch(*(folder / f"{case}_000{i}.nii.gz" for case in "xy" for i in range(2)))


def new_brats(folder: Path) -> None:
    ends = ("t2f", "t1n", "t1c", "t2w")
    touch(*(folder / case / f"{case}-{end}.nii.gz" for case in "xy" for end in ends))
    # A label map that lies there all the same is not looked at.
    touch(folder / "y/y-seg.nii.gz")


def brats_folder(root: Path, ids: list[str]) -> Path:
    ends = ("flair", "t1", "t1ce", "t2", "seg")
    touch(*(root / case / f"{case}_{end}.nii.gz" for case in ids for end in ends))
    return root


SOURCES = [
    ("msd", msd_folder, new_msd, 1),
    ("nnunet", nnunet_folder, new_nnunet, 2),
    ("brats", brats_folder, new_brats, 4),
]


@pytest.mark.parametrize(("source", "make", "make_new", "files"), SOURCES)
def test_new_cases_in_the_format_of_the_data_set(
    tmp_path: Path, source: str, make: Any, make_new: Any, files: int
) -> None:
    root = make(tmp_path / "data", ["a", "b", "c"])
    make_new(tmp_path / "new")
    asked = config(source, root)
    cohort = load_cohort({**asked, "new": str(tmp_path / "new")})
    assert not cohort.problems, texts(cohort)
    assert cohort.new == ["x", "y"]
    assert cohort.test == load_cohort(asked).test
    case = cohort.case("y")
    assert (case.label, case.role, case.train_case) == (None, "new", False)
    assert len(case.existing_sources) == len(case.images) == files
    assert all(Path(path).is_file() for path in case.images)


@pytest.mark.parametrize(("source", "make", "make_new", "files"), SOURCES)
def test_a_new_case_called_as_a_labelled_one(
    tmp_path: Path, source: str, make: Any, make_new: Any, files: int
) -> None:
    root = make(tmp_path / "data", ["a", "b", "X", "c"])
    make_new(tmp_path / "new")
    cohort = load_cohort(config(source, root, new=str(tmp_path / "new")))
    assert cohort.new == ["y"]
    assert "x error Duplicate case id" in texts(cohort)


def test_new_folders_that_cannot_be_read(tmp_path: Path) -> None:
    root = nnunet_folder(tmp_path / "data", ["a", "b", "c"])
    new = tmp_path / "new"

    def load(wish: Any = str(new), source: str = "nnunet") -> None:
        load_cohort(config(source, root if source != "phantom" else None, new=wish))

    with pytest.raises(UserError, match=r"cohort\.new .*new is not a folder"):
        load()
    new.mkdir()
    with pytest.raises(UserError, match=r"cohort\.new .*new holds no case"):
        load()
    with pytest.raises(UserError, match=r"cohort\.new is 3: give the folder"):
        load(3)
    with pytest.raises(UserError, match=r"the synthetic cohort has no folders"):
        load(source="phantom")
    touch(new / "x.nii.gz")
    with pytest.raises(UserError, match=r"x\.nii\.gz in cohort\.new is no channel"):
        load()
    touch(new / "x.nii")
    with pytest.raises(UserError, match=r"holds both \.nii and \.nii\.gz"):
        load()


def test_a_new_case_that_lacks_a_channel(tmp_path: Path) -> None:
    root = nnunet_folder(tmp_path / "data", ["a", "b", "c"])
    touch(tmp_path / "new/x_0000.nii.gz", tmp_path / "new/x_0002.nii.gz")
    cohort = load_cohort(config("nnunet", root, new=str(tmp_path / "new")))
    assert cohort.case("x").missing == (str(tmp_path / "new/x_0001.nii.gz"),)
    assert "x error Wrong channel count: x_0002.nii.gz" in texts(cohort)


def test_new_cases_are_checked_and_imported_without_a_label(tmp_path: Path) -> None:
    root = nnunet_folder(tmp_path / "data", [])
    for number, name in enumerate("abcxy"):
        folder = root / "imagesTr" if name in "abc" else tmp_path / "new"
        (root / "labelsTr").mkdir(exist_ok=True)
        folder.mkdir(exist_ok=True)
        draw = np.random.default_rng(number)
        for channel in range(2):
            voxels = draw.integers(1, 99, (6, 5, 4)).astype(np.int16)
            nib.save(
                nib.Nifti1Image(voxels, np.eye(4)),
                folder / f"{name}_000{channel}.nii.gz",
            )
        label = np.zeros((6, 5, 4), np.uint8)
        label[number, 1:4, 1:4] = 1
        label[number, 2, 2] = 2
        if name in "abc":
            nib.save(
                nib.Nifti1Image(label, np.eye(4)), root / f"labelsTr/{name}.nii.gz"
            )
    cohort = load_cohort(config("nnunet", root, new=str(tmp_path / "new")))
    assert check_cohort(cohort, 1) == []
    raw = tmp_path / "raw"
    case = cohort.case("x")
    images = raw_images(raw, case, 2)
    assert images == [f"{raw}/imagesTs/x_000{i}.nii.gz" for i in range(2)]
    assert raw_label(raw, case) is None
    import_case(case, cohort.label_map, images, None)
    for source, target in zip(case.images, images, strict=True):
        assert Path(source).read_bytes() == Path(target).read_bytes()
    # Broken ones are named like all others.
    voxels = np.random.default_rng(9).uniform(1, 9, (6, 5, 4)).astype(np.float32)
    voxels[0, 0, :3] = np.nan
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "new/y_0001.nii.gz")
    problems = check_cohort(cohort, 1)
    assert [p.case for p in problems] == ["y"]
    assert "y_0001.nii.gz (T1gd) has 3 NaN" in problems[0].problem


def test_new_phantoms_are_imported_as_generated(tmp_path: Path) -> None:
    cohort = load_cohort(config("phantom", new=1))
    case = cohort.case("phantom_new_001")
    images = raw_images(tmp_path, case, 4)
    import_case(case, cohort.label_map, images, None, PHANTOM, 5)
    made = patient.generate(case.id, PHANTOM, "", 5)
    for path, expected in zip(images, made.image, strict=True):
        stored = sitk.GetArrayFromImage(sitk.ReadImage(path))
        np.testing.assert_array_equal(stored, expected)
    assert check_cohort(cohort, 1) == []


def test_the_table_has_all_roles(tmp_path: Path) -> None:
    cohort = load_cohort(config("phantom", calibration=1, new=1))
    write_cohort(cohort, "results/raw", tmp_path / "cohort.tsv")
    with (tmp_path / "cohort.tsv").open() as file:
        rows = {row["case"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert {case: row["role"] for case, row in rows.items()} == {
        "phantom_001": "pool",
        "phantom_002": "pool",
        "phantom_003": "held_out",
        "phantom_004": "calibration",
        "phantom_new_001": "new",
    }
    new = rows["phantom_new_001"]
    assert new["label"] == ""
    assert new["image"] == "results/raw/imagesTs/phantom_new_001_0000.nii.gz"
    assert rows["phantom_004"]["label"] == "results/raw/labelsTr/phantom_004.nii.gz"
    assert new["patient"] == "phantom_new_001"


def test_a_record_keeps_the_role(tmp_path: Path) -> None:
    case = load_cohort(config("phantom", new=1)).case("phantom_new_001")
    assert not Case.from_record(case.as_record()).is_labelled
