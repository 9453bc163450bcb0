"""BraTS folders of all years."""

from pathlib import Path

import pytest
from unit.cohort.folders import config, texts, touch

from casesim.cohort.loading import load_cohort
from casesim.errors import UserError

STYLES = {
    "HGG/Brats17_2013_0_1": ["_flair", "_t1", "_t1ce", "_t2", "_seg"],
    "LGG/Brats18_X_1_1": ["_flair", "_t1", "_t1ce", "_t2", "_seg"],
    "BraTS20_Training_001": ["_flair", "_t1", "_t1ce", "_t2", "_seg"],
    "BraTS-GLI-00005-100": ["-t2f", "-t1n", "-t1c", "-t2w", "-seg"],
}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_brats_in_all_its_styles(tmp_path: Path, ending: str) -> None:
    for folder, ends in STYLES.items():
        name = folder.rpartition("/")[2]
        touch(*(tmp_path / folder / f"{name}{end}{ending}" for end in ends))
        touch(tmp_path / folder / f"._{name}{ends[0]}{ending}")
    touch(tmp_path / "name_mapping.csv")
    cohort = load_cohort(config("brats", tmp_path, pool=3))
    assert not cohort.problems
    assert cohort.channel_names == ["FLAIR", "T1w", "T1gd", "T2w"]
    assert cohort.label_map == {0: 0, 2: 1, 1: 2, 4: 3}
    assert cohort.labels["enhancing_tumour"] == 3
    for folder, ends in STYLES.items():
        name = folder.rpartition("/")[2]
        expected = [str(tmp_path / folder / f"{name}{end}{ending}") for end in ends]
        case = cohort.case(name)
        assert [*case.images, case.label] == expected
        assert not case.missing


def test_brats_files_missing_ambiguous_or_misnamed(tmp_path: Path) -> None:
    for name in ("p1", "p2", "p3"):
        ends = ("-t2f", "-t1n", "-t1c", "-t2w", "-seg")
        touch(*(tmp_path / name / f"{name}{end}.nii.gz" for end in ends))
    touch(tmp_path / "p1/p1-t2f.nii")
    (tmp_path / "p2/p2-seg.nii.gz").rename(tmp_path / "p2/W39_Segm.nii.gz")
    (tmp_path / "empty").mkdir()
    cohort = load_cohort(config("brats", tmp_path))
    assert "p1 error" in texts(cohort)
    assert "p1-t2f.nii and p1-t2f.nii.gz" in texts(cohort)
    assert cohort.case("p2").missing == (str(tmp_path / "p2/p2-seg.nii.gz"),)
    assert "W39_Segm.nii.gz" in texts(cohort)
    assert "empty warning" in texts(cohort)


def test_brats_labels_are_numbered_in_their_order(tmp_path: Path) -> None:
    for name in ("p1", "p2", "p3"):
        touch(tmp_path / name / f"{name}_flair.nii.gz")
    labels = {"core": [1, 4], "edema": [2]}
    cohort = load_cohort(config("brats", tmp_path, brats={"labels": labels}))
    assert cohort.label_map == {0: 0, 1: 1, 4: 1, 2: 2}
    assert cohort.labels == {"background": 0, "core": 1, "edema": 2}
    twice = {"core": [1, 2], "edema": [2]}
    with pytest.raises(UserError, match="number 2 of 'edema' is taken"):
        load_cohort(config("brats", tmp_path, brats={"labels": twice}))
