"""nnU-Net's raw folders."""

import json
from pathlib import Path
from typing import Any

import pytest
from unit.cohort.folders import NNUNET_JSON, config, nnunet_folder, texts, touch

from casesim.cohort.loading import load_cohort
from casesim.errors import UserError

REGIONS = {
    "background": 0,
    "whole tumor": [1, 2, 3],
    "tumor_core": [2, 3],
    "enhancing_tumor": 3,
}


def test_nnunet(tmp_path: Path) -> None:
    root = nnunet_folder(tmp_path, ["a", "b_0001", "c"])
    (root / "imagesTr/c_0001.nii.gz").unlink()
    touch(root / "imagesTr/a_0002.nii.gz", root / "imagesTr/stray.nii.gz")
    cohort = load_cohort(config("nnunet", root))
    assert cohort.test == ["a", "b_0001", "c"]
    assert cohort.channel_names == ["FLAIR", "T1gd"]
    assert cohort.case("b_0001").images[1] == str(root / "imagesTr/b_0001_0001.nii.gz")
    assert cohort.case("c").missing == (str(root / "imagesTr/c_0001.nii.gz"),)
    assert "a error Wrong channel count: a_0002.nii.gz" in texts(cohort)
    assert "stray.nii.gz is no channel" in texts(cohort)


def test_nnunet_cases_listed_in_dataset_json(tmp_path: Path) -> None:
    root = nnunet_folder(tmp_path / "raw", [])
    other = nnunet_folder(tmp_path / "other", ["x", "y", "z"])
    dataset = {
        name: {
            "images": [f"../other/imagesTr/{name}_{i:04d}.nii.gz" for i in (0, 1)],
            "label": str(other / f"labelsTr/{name}.nii.gz"),
        }
        for name in "xyz"
    }
    dataset["x"]["images"] = dataset["x"]["images"][:1]
    (other / "labelsTr/z.nii.gz").unlink()
    (root / "dataset.json").write_text(json.dumps({**NNUNET_JSON, "dataset": dataset}))
    cohort = load_cohort(config("nnunet", root))
    assert cohort.case("y").images[0] == str(other / "imagesTr/y_0000.nii.gz")
    assert cohort.case("z").missing == (str(other / "labelsTr/z.nii.gz"),)
    assert "x error Wrong channel count" in texts(cohort)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"background": 0, "a": 1, "ignore": 3}}, "after .* label, 2"),
        ({"labels": REGIONS}, r'3 regions, but "regions_class_order" is None'),
        (
            {"labels": REGIONS, "regions_class_order": [1, 2]},
            r"\[1, 2\]: it must hold a label number for each region",
        ),
        (
            {"labels": REGIONS, "regions_class_order": [1, 1, 3]},
            r"writes 1 where tumor_core is segmented",
        ),
        (
            {
                "labels": {"background": 0, "a": [1, 2], "b": [4]},
                "regions_class_order": [1, 4],
            },
            "without gaps",
        ),
        ({"labels": {"background": 0, "a": [0, 1]}}, "numbers above 0"),
        ({"labels": {"rest": 0, "a": [1, 2]}}, "'background' must"),
        ({"labels": {"background": 0, "a": "one"}}, "'one'"),
        ({"file_ending": ".jpg"}, r"\.nrrd, \.mha, .* can be read. Convert the images"),
    ],
)
def test_unusable_nnunet_json(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    root = nnunet_folder(tmp_path, ["a", "b", "c"], **changes)
    with pytest.raises(UserError, match=message):
        load_cohort(config("nnunet", root))


def test_regions_and_an_ignored_label(tmp_path: Path) -> None:
    declared = {**REGIONS, "ignore": 4}
    root = nnunet_folder(
        tmp_path, ["a", "b", "c"], labels=declared, regions_class_order=[1, 2, 3]
    )
    cohort = load_cohort(config("nnunet", root))
    assert cohort.labels == {
        **{"background": 0, "label_1": 1, "label_2": 2},
        "enhancing_tumor": 3,
    }
    assert cohort.scored == {
        **{"whole_tumor": (1, 2, 3), "tumor_core": (2, 3)},
        "enhancing_tumor": (3,),
    }
    assert cohort.targets.class_order == (1, 2, 3)
    assert cohort.targets.ignore == 4
    assert cohort.label_map == {number: number for number in range(5)}
    # What nnU-Net is told is what the user has told, with names for files.
    written = {name.replace(" ", "_"): number for name, number in declared.items()}
    assert list(cohort.dataset_labels.items()) == list(written.items())


def test_an_ignored_label_beside_plain_ones(tmp_path: Path) -> None:
    labels = {"background": 0, "edema": [1], "core": 2, "ignore": 3}
    root = nnunet_folder(tmp_path, ["a", "b", "c"], labels=labels)
    cohort = load_cohort(config("nnunet", root))
    assert cohort.labels == {"background": 0, "edema": 1, "core": 2}
    assert cohort.scored == {"edema": (1,), "core": (2,)}
    assert cohort.dataset_labels == {**cohort.labels, "ignore": 3}


@pytest.mark.parametrize(
    ("number", "fine"),
    [(2, True), (2.0, True), ("2", True), (3.7, False), (True, False)],
)
def test_label_numbers_are_whole(tmp_path: Path, number: Any, fine: bool) -> None:
    labels = {"background": 0, "a": 1, "b": number}
    root = nnunet_folder(tmp_path, ["a", "b", "c"], labels=labels)
    if fine:
        assert load_cohort(config("nnunet", root)).labels["b"] == 2
    else:
        with pytest.raises(UserError, match="which is no whole number"):
            load_cohort(config("nnunet", root))


def test_images_listed_as_one_text(tmp_path: Path) -> None:
    dataset = {"x": {"images": "imagesTr/x_0000.nii.gz", "label": "labelsTr/x.nii.gz"}}
    root = nnunet_folder(tmp_path, [], dataset=dataset)
    with pytest.raises(UserError, match=r"must give 'images' \(a list\) and 'label'"):
        load_cohort(config("nnunet", root))
