import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from nnunetv2.preprocessing.preprocessors.default_preprocessor import (
    DefaultPreprocessor,
)
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from unit.conftest import POOL, SPACING, TinyCohort

from casesim.errors import UserError
from casesim.nnunet import planning, preprocessing
from casesim.nnunet.files import read_json, write_json


def test_preprocessing_is_nnunets(tiny_cohort: TinyCohort, tmp_path: Path) -> None:
    plans, configuration = planning.load_plans(tiny_cohort.plans, "2d")
    case = POOL[0]
    DefaultPreprocessor(verbose=False).run_case_save(
        str(tmp_path / case),
        [str(path) for path in tiny_cohort.images(case)],
        str(tiny_cohort.label(case)),
        plans,
        configuration,
        read_json(tiny_cohort.dataset),
    )
    for suffix in (".b2nd", "_seg.b2nd", ".pkl"):
        ours = Path(f"{tiny_cohort.stem(case)}{suffix}").read_bytes()
        assert ours == (tmp_path / f"{case}{suffix}").read_bytes()


def test_a_case_without_a_label_gets_the_same_image(
    tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    case = POOL[0]
    preprocessing.preprocess_case(
        tiny_cohort.images(case),
        None,
        tiny_cohort.plans,
        tiny_cohort.dataset,
        "2d",
        tmp_path / case,
    )
    data, seg, properties = preprocessing.load_preprocessed(tmp_path / case, True)
    usual, usual_seg, _ = preprocessing.load_preprocessed(tiny_cohort.stem(case), True)
    np.testing.assert_array_equal(data, usual)
    assert seg is not None
    assert usual_seg is not None
    np.testing.assert_array_equal(seg, np.minimum(usual_seg, 0))
    assert "class_locations" not in properties


def test_arrays_are_preprocessed_as_files_are(
    tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    image, label, spacing = preprocessing.read_case(
        tiny_cohort.images(POOL[1]), tiny_cohort.label(POOL[1])
    )
    assert image.shape == (4, 12, 32, 32)
    assert label.shape == (12, 32, 32)
    assert tuple(spacing) == SPACING
    preprocessing.preprocess_arrays(
        image,
        label,
        spacing,
        tiny_cohort.plans,
        tiny_cohort.dataset,
        "2d",
        tmp_path / "copy_0",
    )
    expected = preprocessing.load_preprocessed(tiny_cohort.stem(POOL[1]), with_seg=True)
    data, seg, properties = preprocessing.load_preprocessed(
        tmp_path / "copy_0", with_seg=True
    )
    np.testing.assert_array_equal(data, expected[0])
    np.testing.assert_array_equal(seg, expected[1])
    assert data.dtype == np.float32
    for label_value, locations in expected[2]["class_locations"].items():
        np.testing.assert_array_equal(
            properties["class_locations"][label_value], locations
        )


def test_the_segmentation_is_read_when_asked_for(tiny_cohort: TinyCohort) -> None:
    data, seg, properties = preprocessing.load_preprocessed(tiny_cohort.stem(POOL[0]))
    assert seg is None
    assert properties["shape_before_cropping"] == (12, 32, 32)
    lazy_data, lazy_seg = preprocessing.open_preprocessed(tiny_cohort.stem(POOL[0]))
    np.testing.assert_array_equal(lazy_data[:], data)
    assert lazy_seg.shape == (1, *data.shape[1:])


def test_failed_preprocessing_leaves_no_file(
    tiny_cohort: TinyCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_half(
        data: np.ndarray, seg: np.ndarray, _: Any, stem: str, **__: Any
    ) -> None:
        Path(f"{stem}.b2nd").write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(nnUNetDatasetBlosc2, "save_case", save_half)
    with pytest.raises(OSError, match="disk full"):
        preprocessing.preprocess_arrays(
            np.ones((4, 4, 8, 8), np.float32),
            np.zeros((4, 8, 8), np.uint8),
            SPACING,
            tiny_cohort.plans,
            tiny_cohort.dataset,
            "2d",
            tmp_path / "copy_0",
        )
    assert list(tmp_path.iterdir()) == []


def test_the_image_gets_its_name_when_the_others_have_theirs_for_certain(
    tiny_cohort: TinyCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later jobs wait for the image alone: after a power cut the rest was missing."""
    seen = []

    def note(path: Path) -> None:
        if path.is_dir():
            seen.append(sorted(file.name for file in path.glob("case*")))

    monkeypatch.setattr(preprocessing, "sync", note)
    shape = (4, 9, 27, 25)
    preprocessing.preprocess_arrays(
        np.random.default_rng(0).normal(size=shape).astype(np.float32),
        np.ones(shape[1:], np.int16),
        [3.0, 2.0, 2.0],
        tiny_cohort.plans,
        tiny_cohort.dataset,
        "2d",
        tmp_path / "case",
    )
    assert seen == [["case.pkl", "case_seg.b2nd"]]
    assert (tmp_path / "case.b2nd").exists()


@pytest.mark.parametrize("suffix", [".b2nd", "_seg.b2nd", ".pkl"])
def test_damaged_and_missing_cases_are_named(
    tiny_cohort: TinyCohort, tmp_path: Path, suffix: str
) -> None:
    for end in (".b2nd", "_seg.b2nd", ".pkl"):
        shutil.copy(f"{tiny_cohort.stem(POOL[0])}{end}", tmp_path / f"a{end}")
    path = tmp_path / f"a{suffix}"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"{path} is damaged"):
        preprocessing.load_preprocessed(tmp_path / "a", with_seg=True)
    path.unlink()
    with pytest.raises(UserError, match=f"{path} is missing"):
        preprocessing.load_preprocessed(tmp_path / "a", with_seg=True)


def test_an_ignored_label_does_not_change_what_a_network_sees(
    tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    case = POOL[0]
    dataset = read_json(tiny_cohort.dataset)
    dataset["labels"]["ignore"] = 4
    write_json(tmp_path / "dataset.json", dataset)
    image = SimpleITK.ReadImage(str(tiny_cohort.label(case)))
    labels = SimpleITK.GetArrayFromImage(image)
    labels[8:] = 4  # whole slices, their corners outside of the brain included
    ignoring = SimpleITK.GetImageFromArray(labels)
    ignoring.CopyInformation(image)
    SimpleITK.WriteImage(ignoring, str(tmp_path / "label.nii.gz"))
    label_maps = {"with": tmp_path / "label.nii.gz", "without": None}
    for name, label in label_maps.items():
        preprocessing.preprocess_case(
            *(tiny_cohort.images(case), label, tiny_cohort.plans),
            *(tmp_path / "dataset.json", "2d", tmp_path / name),
        )
    data, seg, _ = preprocessing.load_preprocessed(tmp_path / "with", with_seg=True)
    alone, _, _ = preprocessing.load_preprocessed(tmp_path / "without")
    np.testing.assert_array_equal(data, alone)
    assert seg is not None
    assert (seg == 4).any()
    # The same for a copy in memory.
    read = preprocessing.read_case(tiny_cohort.images(case), tmp_path / "label.nii.gz")
    preprocessing.preprocess_arrays(
        *(*read, tiny_cohort.plans, tmp_path / "dataset.json", "2d"), tmp_path / "copy"
    )
    copy, copy_seg, _ = preprocessing.load_preprocessed(tmp_path / "copy", True)
    np.testing.assert_array_equal(copy, data)
    np.testing.assert_array_equal(copy_seg, seg)
