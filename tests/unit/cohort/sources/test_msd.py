"""Folders of the Decathlon."""

from pathlib import Path
from typing import Any

import pytest
from unit.cohort.folders import config, msd_folder, texts, touch

from casesim.cohort.loading import load_cohort
from casesim.errors import UserError


def test_msd(tmp_path: Path) -> None:
    ids = ["BRATS_001", "BRATS_002", "BRATS_003"]
    root = msd_folder(tmp_path, ids)
    touch(root / "imagesTr/._BRATS_001.nii.gz", root / "imagesTr/.DS_Store")
    touch(root / "imagesTs/BRATS_009.nii.gz", root / "imagesTr/notes.txt")
    cohort = load_cohort(config("msd", root))
    assert cohort.test == ids
    assert cohort.channel_names == ["FLAIR", "T1w", "T1gd", "T2w"]
    assert cohort.labels == {
        "background": 0,
        "edema": 1,
        "non-enhancing_tumor": 2,
        "enhancing_tumour": 3,
    }
    assert cohort.label_map == {0: 0, 1: 1, 2: 2, 3: 3}
    assert cohort.foreground_labels[0] == "edema"
    assert not cohort.problems
    case = cohort.case("BRATS_001")
    assert case.images == (str(root / "imagesTr/BRATS_001.nii.gz"),)
    assert case.label == str(root / "labelsTr/BRATS_001.nii.gz")
    assert sorted([*cohort.pool, *cohort.held_out]) == ids
    assert set(cohort.train) <= set(cohort.pool)


def test_files_that_are_missing_are_not_declared(tmp_path: Path) -> None:
    root = msd_folder(tmp_path, ["a", "b", "c"])
    (root / "labelsTr/a.nii.gz").unlink()
    (root / "imagesTr/b.nii.gz").unlink()
    (root / "imagesTr/c.nii.gz").unlink()
    (root / "imagesTr/c.nii.gz").symlink_to(root / "gone.nii.gz")
    cohort = load_cohort(config("msd", root))
    assert cohort.test == ["a", "b", "c"]
    existing = {case.id: case.existing_sources for case in cohort.cases}
    assert existing == {
        "a": (str(root / "imagesTr/a.nii.gz"),),
        "b": (str(root / "labelsTr/b.nii.gz"),),
        "c": (str(root / "labelsTr/c.nii.gz"),),
    }


def test_msd_list_of_training_cases_is_compared(tmp_path: Path) -> None:
    entries = [{"image": f"./imagesTr/{i}.nii.gz"} for i in ("a", "a", "b", "c", "zz")]
    root = msd_folder(tmp_path, ["a", "b", "c"], training=entries)
    cohort = load_cohort(config("msd", root))
    assert "a error Duplicate case id" in texts(cohort)
    assert "(cohort) warning" in texts(cohort)
    assert "1 cases that have no file: zz" in texts(cohort)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"0": "background", "2": "tumour"}}, "without gaps"),
        ({"labels": {"0": "air", "1": "tumour"}}, "must be called 'background'"),
        ({"labels": {"0": "background", "1": "mean"}}, "reserved"),
        ({"labels": {"0": "background", "1": "a b", "2": "a/b"}}, "too much like"),
        ({"labels": ["background"]}, "must be an object"),
        ({"modality": {}}, "must name the channels"),
        ({"modality": {"1": "FLAIR"}}, "must name the channels"),
        ({"modality": ["FLAIR"]}, "must name the channels"),
    ],
)
def test_unusable_msd_json(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    root = msd_folder(tmp_path, ["a", "b", "c"], **changes)
    with pytest.raises(UserError, match=message) as caught:
        load_cohort(config("msd", root))
    assert "dataset.json" in str(caught.value)


@pytest.mark.parametrize("training", [None, {}, "imagesTr/a.nii.gz", 3, [None, 1]])
def test_a_list_of_training_cases_that_is_none(tmp_path: Path, training: Any) -> None:
    root = msd_folder(tmp_path, ["a", "b", "c"], training=training)
    assert not load_cohort(config("msd", root)).problems


@pytest.mark.parametrize("number", ["3.7", "1e400", "nan"])
def test_label_numbers_that_are_none(tmp_path: Path, number: str) -> None:
    labels = {"0": "background", "1": "a", number: "b"}
    root = msd_folder(tmp_path, ["a", "b", "c"], labels=labels)
    with pytest.raises(UserError, match=f"label 'b' has the number '{number}', which"):
        load_cohort(config("msd", root))


def test_a_list_that_was_written_on_windows(tmp_path: Path) -> None:
    entries = [{"image": f"imagesTr\\{case}.NII.GZ"} for case in "abc"]
    root = msd_folder(tmp_path, [*"abc"], training=entries)
    assert not load_cohort(config("msd", root)).problems
