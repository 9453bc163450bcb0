"""Files that cannot be read, or hold something else, are named."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from unit.cohort.checks.broken import (
    SHAPE,
    Folder,
    cut,
    image_of,
    only,
    save,
    save_skewed,
)


@pytest.mark.parametrize("target", ["image", "label"])
def test_missing_file(folder: Folder, target: str) -> None:
    path = getattr(folder, target)(2)
    path.unlink()
    problem = only(folder.check())
    assert problem.case == "case_2"
    assert problem.problem == f"{path} is missing."


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("target", ["image", "label"])
def test_truncated_gzip(folder: Folder, target: str, kept: float) -> None:
    path = getattr(folder, target)(1)
    cut(path, kept)
    problem = only(folder.check())
    assert f"{path} is cut off: a truncated gzip file" in problem.problem
    assert "again" in problem.how_to_fix


def test_only_the_last_bytes_of_the_gzip_are_missing(folder: Folder) -> None:
    """All voxels are there, but not the checksum: readers do not notice."""
    path = folder.image(1)
    path.write_bytes(path.read_bytes()[:-8])
    assert nib.load(path).get_fdata().shape == SHAPE  # type: ignore[attr-defined]
    assert "cut off" in only(folder.check()).problem


def damaged(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda path: b"", "is empty"),
        (lambda path: b"hello, world", "is damaged, or no gzip file"),
        (damaged, "is damaged, or no gzip file"),
        (lambda path: gzip.compress(b"x" * 5000), "is not a NIfTI file"),
        (
            lambda path: gzip.compress(gzip.decompress(path.read_bytes())[:-100]),
            "fewer voxels",
        ),
        (lambda path: b"version https://git-lfs.github.com/spec/v1\n", "is a pointer"),
    ],
)
def test_unreadable_content(folder: Folder, content: Any, message: str) -> None:
    path = folder.image(3, 1)
    path.write_bytes(content(path))
    problem = only(folder.check())
    assert problem.problem.startswith(str(path))
    assert message in problem.problem


def test_file_that_is_a_dangling_link(folder: Folder) -> None:
    folder.label(0).unlink()
    folder.label(0).symlink_to(folder.root / "gone")
    assert "is a link to nowhere" in only(folder.check()).problem


def test_skewed_axes_are_refused_as_simpleitk_refuses_them(folder: Folder) -> None:
    save_skewed(folder.image(0))
    with pytest.raises(RuntimeError):
        sitk.ReadImage(str(folder.image(0)))
    assert "is refused by SimpleITK" in only(folder.check()).problem


@pytest.mark.parametrize("shape", [(*SHAPE, 2), (9, 8), (*SHAPE, 1, 3)])
def test_wrong_channel_count_in_a_channel_file(folder: Folder, shape: Any) -> None:
    save(folder.image(0), np.ones(shape, np.int16))
    problem = only(folder.check())
    assert problem.problem.startswith(f"Wrong channel count: {folder.image(0)}")


def test_wrong_channel_count_by_surplus_file(folder: Folder) -> None:
    save(folder.image(0, 2), image_of(0, 2))
    assert "Wrong channel count: case_0_0002.nii.gz" in only(folder.check()).problem


def test_label_map_of_four_dimensions(folder: Folder) -> None:
    save(folder.label(0), np.ones((*SHAPE, 2), np.uint8))
    assert "has 4 dimensions" in only(folder.check()).problem
