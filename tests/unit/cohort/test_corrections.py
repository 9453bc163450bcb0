"""Corrected label maps: found by name, and checked as a cohort's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from casesim.cohort import corrections
from casesim.errors import UserError

LABELS = {"background": 0, "edema": 1, "core": 2}


def write(voxels: np.ndarray, path: Path, spacing: float = 1.0) -> str:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing([spacing] * 3)
    sitk.WriteImage(image, str(path), True)
    return str(path)


def make_case(folder: Path) -> tuple[list[str], np.ndarray]:
    random = np.random.default_rng(0)
    image = random.normal(100, 5, (6, 20, 20)).astype(np.float32)
    images = [write(image + i, folder / f"case_000{i}.nii.gz") for i in range(2)]
    label = np.zeros(image.shape, np.uint8)
    label[2:4, 5:12, 5:12] = 1
    label[2:4, 7:9, 7:9] = 2
    return images, label


def take_over(
    images: list[str], corrected: str, output: Path, ignore: int | None = None
) -> None:
    corrections.import_correction(
        "case", images, corrected, ["FLAIR", "T1gd"], LABELS, str(output), ignore
    )


def test_files_are_found_by_case(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.c.nii", "notes.txt", ".hidden.nii.gz"):
        (tmp_path / name).touch()
    found = corrections.find(str(tmp_path), ["a", "b.c", "d"], ["h"])
    assert found == {"a": f"{tmp_path}/a.nii.gz", "b.c": f"{tmp_path}/b.c.nii"}


def test_files_that_cannot_be_meant_are_all_told(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "a.nii", "h.nii.gz", "x_corrected.nii.gz"):
        (tmp_path / name).touch()
    with pytest.raises(UserError) as error:
        corrections.find(str(tmp_path), ["a"], ["h"])
    message = str(error.value)
    assert "h.nii.gz is of a held-out case" in message
    assert "x_corrected.nii.gz is of no pool case" in message
    assert "are of one case" in message


def test_an_empty_or_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no label map"):
        corrections.find(str(tmp_path), ["a"], [])
    with pytest.raises(UserError, match="there is no folder"):
        corrections.find(str(tmp_path / "none"), ["a"], [])


def test_a_correction_is_taken_over_unaltered(tmp_path: Path) -> None:
    images, label = make_case(tmp_path)
    path = write(label, tmp_path / "corrected.nii.gz")
    take_over(images, path, tmp_path / "out.nii.gz")
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out.nii.gz")))
    np.testing.assert_array_equal(found, label)


def test_what_nobody_labelled_stays_ignored(tmp_path: Path) -> None:
    images, label = make_case(tmp_path)
    label[4:] = 3
    path = write(label, tmp_path / "corrected.nii.gz")
    with pytest.raises(UserError, match="outside the declared ones"):
        take_over(images, path, tmp_path / "out.nii.gz")
    take_over(images, path, tmp_path / "out.nii.gz", ignore=3)
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out.nii.gz")))
    np.testing.assert_array_equal(found, label)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda label: label[:, :, 1:], "shape"),
        (lambda label: label * 3, "values"),
        (lambda label: label * 0, "empty"),
    ],
)
def test_a_correction_that_cannot_be_used_is_refused(
    tmp_path: Path, spoil: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    images, label = make_case(tmp_path)
    path = write(spoil(label), tmp_path / "corrected.nii.gz")
    with pytest.raises(UserError, match=r"corrected\.nii\.gz cannot be used") as error:
        take_over(images, path, tmp_path / "out.nii.gz")
    print(error.value)
    assert message in str(error.value)
    assert not (tmp_path / "out.nii.gz").exists()
