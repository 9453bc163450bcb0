"""Folders are read by their listing; ids are screened; light enough for every start."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from unit.cohort.folders import (
    MSD_JSON,
    ROOT,
    config,
    msd_folder,
    nnunet_folder,
    texts,
    touch,
)

from casesim.cohort.loading import load_cohort
from casesim.errors import UserError


def test_unsafe_and_duplicate_ids_are_left_out_and_named(tmp_path: Path) -> None:
    unsafe = ["gliöm", "with space", "-dash", "x" * 101, "semi;colon", "good_seg"]
    ids = [*unsafe, "Alike", "alike", "twice", "good", "fine", "well"]
    root = msd_folder(tmp_path, ids)
    touch(root / "imagesTr/twice.nii")
    cohort = load_cohort(config("msd", root, pool=["good", "fine", "alike"]))
    assert cohort.test == ["fine", "good", "well"]
    assert {p.severity for p in cohort.problems} == {"error"}
    assert sorted(p.case for p in cohort.problems) == sorted(
        [*unsafe, "Alike", "twice"]
    )
    assert "Alike, alike differs from another only by case" in texts(cohort)
    assert "gliöm error The case id is not plain ASCII" in texts(cohort)


def test_two_patients_of_one_name_in_two_folders(tmp_path: Path) -> None:
    for name in ("HGG/p1", "LGG/p1", "LGG/p2", "HGG/p3"):
        touch(tmp_path / name / f"{name[4:]}_flair.nii")
    cohort = load_cohort(config("brats", tmp_path, pool=1))
    assert cohort.test == ["p2", "p3"]
    assert "Duplicate case id: p1 is there" in texts(cohort)


def test_folders_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs cohort\.path"):
        load_cohort(config("msd"))
    with pytest.raises(UserError, match="is not a folder"):
        load_cohort(config("msd", tmp_path / "none"))
    with pytest.raises(UserError, match=r"has no dataset\.json"):
        load_cohort(config("nnunet", tmp_path))
    with pytest.raises(UserError, match=r"No usable case .*\nExpected: .*_flair"):
        load_cohort(config("brats", tmp_path))
    msd = msd_folder(tmp_path / "msd", ["ü"])
    with pytest.raises(UserError, match=r"set cohort\.source: msd"):
        load_cohort(config("nnunet", msd))
    with pytest.raises(UserError, match=r"No usable case .*\n.* not plain ASCII"):
        load_cohort(config("msd", msd))
    nnunet = nnunet_folder(tmp_path / "nnunet", ["a"])
    with pytest.raises(UserError, match=r"set cohort\.source: nnunet"):
        load_cohort(config("msd", nnunet))
    (msd / "dataset.json").write_text("{")
    with pytest.raises(UserError, match=r"dataset.json is not readable JSON: .*line 1"):
        load_cohort(config("msd", msd))


def test_five_hundred_cases_are_listed_without_opening_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"BRATS_{i:03d}" for i in range(500)]
    random.Random(1).shuffle(ids)
    root = msd_folder(tmp_path, ids)
    calls = []
    stat = os.stat

    def count(*args: Any, **options: Any) -> os.stat_result:
        calls.append(args)
        return stat(*args, **options)

    monkeypatch.setattr(os, "stat", count)
    cohort = load_cohort(config("msd", root, pool=400, train_cases=50, held_out=100))
    assert (len(cohort.pool), len(cohort.train), len(cohort.held_out)) == (400, 50, 100)
    assert not cohort.problems
    # Zero-byte files pass: none was opened. Nor was each asked for its status.
    assert len(calls) < 20


def test_parsing_imports_the_standard_library_only() -> None:
    code = (
        "import sys, casesim.cohort.loading as c, casesim.cohort.selection;"
        "assert not {'numpy', 'nibabel', 'SimpleITK', 'torch'} & set(sys.modules)"
    )
    scripts = str(ROOT / "workflow_scripts")
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={**os.environ, "PYTHONPATH": scripts},
    )


def test_a_folder_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = {
        "msd": msd_folder(tmp_path / "msd", ["a", "b", "c"]),
        "nnunet": nnunet_folder(tmp_path / "nnunet", ["a", "b", "c"]),
    }
    touch(tmp_path / "brats/p1/p1_flair.nii")
    scandir = os.scandir

    def refuse(folder: Any) -> Any:
        if Path(folder).name in ("imagesTr", "p1"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    # As root nothing is forbidden, so the refusal is made.
    monkeypatch.setattr(os, "scandir", refuse)
    for source, root in {**roots, "brats": tmp_path / "brats"}.items():
        with pytest.raises(UserError, match=r"cannot be read: Permission denied\. See"):
            load_cohort(config(source, root))


def test_endings_in_capitals_are_named(tmp_path: Path) -> None:
    roots = {
        "msd": msd_folder(tmp_path / "msd", ["a", "b", "c"]),
        "nnunet": nnunet_folder(tmp_path / "nnunet", ["a", "b", "c"]),
    }
    for source, root in roots.items():
        odd = [root / "labelsTr/a.NII.GZ", root / "imagesTr/x_0000.Nii"]
        (root / "labelsTr/a.nii.gz").rename(odd[0])
        touch(odd[1])
        cohort = load_cohort(config(source, root))
        for path in odd:
            text = f"(cohort) error {path} is not read: its ending is not written in"
            assert text in texts(cohort)
    for patient in ("p1", "p2", "p3"):
        ends = ("flair", "t1", "t1ce", "t2", "seg")
        touch(*(tmp_path / f"brats/{patient}/{patient}_{end}.nii" for end in ends))
    odd_path = tmp_path / "brats/p1/p1_seg.NII"
    (tmp_path / "brats/p1/p1_seg.nii").rename(odd_path)
    assert f"error {odd_path} is not read" in texts(
        load_cohort(config("brats", tmp_path / "brats"))
    )


@pytest.mark.parametrize("source", ["msd", "nnunet"])
def test_version_1_of_nnunet_is_recognised(tmp_path: Path, source: str) -> None:
    root = nnunet_folder(tmp_path, ["a", "b", "c"])
    (root / "dataset.json").write_text(json.dumps({**MSD_JSON, "training": []}))
    with pytest.raises(UserError, match="nnUNetv2_convert_old_nnUNet_dataset"):
        load_cohort(config(source, root))


def test_json_with_a_byte_order_mark(tmp_path: Path) -> None:
    root = msd_folder(tmp_path, ["a", "b", "c"])
    content = (root / "dataset.json").read_text()
    (root / "dataset.json").write_text("\ufeff" + content, encoding="utf-8")
    assert load_cohort(config("msd", root)).test == ["a", "b", "c"]
