"""What is in the files: values, labels, their place in space, and one file twice."""

import gzip
import struct
from typing import Any

import nibabel as nib
import numpy as np
from unit.cohort.broken.kinds import Break, add, kind
from unit.cohort.checks.broken import (
    SHAPE,
    Folder,
    affine_of,
    image_of,
    label_of,
    moved,
    save,
)


def voxels(value: float, where: Any = (4, 3, 2), dtype: Any = np.float32) -> Any:
    image = image_of(0).astype(dtype)
    image[where] = value
    return image


def labelled(value: float, dtype: Any = np.float32) -> Any:
    label = label_of(0).astype(dtype)
    label[2, 2, 2] = value
    return label


# Values

for _name, _image, _message in [
    ("NaN in an image", voxels(np.nan), "has 1 NaN or infinite voxels"),
    ("infinity in an image", voxels(np.inf), "has 1 NaN or infinite voxels"),
    ("a voxel of 3e20", voxels(3e20), "3e+20 in one voxel (index 4, 3, 2)"),
    ("a voxel of 1e7", voxels(1e7), "no contrast left"),
    ("a voxel of -1e7", voxels(-1e7), "no contrast left"),
    ("a background of -3e38", voxels(-3e38, np.s_[:5]), "too large to be normalised"),
    ("a background of 1e36", voxels(1e36, np.s_[:5]), "too large to be normalised"),
    ("a background of -1e6", voxels(-1e6, np.s_[:5]), "no contrast left"),
    ("values beyond 32 bits", voxels(1e300, dtype=np.float64), "32-bit numbers cannot"),
    ("a constant channel", np.full(SHAPE, 7, np.int16), "is constant"),
    ("values of 1e-300", image_of(0) * 1e-300, "all the same as 32-bit numbers"),
    ("values of 1e-30", image_of(0) * 1e-30, "too little to be normalised"),
]:

    def _values(f: Folder, image: Any = _image) -> None:
        save(f.image(0), image)

    add(_name, _message, _values)


@kind("a scaling in the header beyond 32 bits", "32-bit numbers cannot")
def _(f: Folder) -> None:
    image = nib.nifti1.Nifti1Image(image_of(0), affine_of())
    image.header.set_slope_inter(1e38, 0)
    nib.save(image, f.image(0))
    # nibabel writes voxels of its own choice with a scaling of its own.
    content = bytearray(gzip.decompress(f.image(0).read_bytes()))
    content[112:120] = struct.pack("<ff", 1e38, 0)
    f.image(0).write_bytes(gzip.compress(bytes(content)))


@kind("one value wherever there is an image", "nothing of it is left")
def _(f: Folder) -> None:
    head = np.add.outer(np.arange(SHAPE[0]), np.arange(SHAPE[1]))[..., None] < 9
    save(f.image(0, 0), np.broadcast_to(9 * head, SHAPE).astype(np.uint8))
    save(f.image(0, 1), (head * (image_of(0, 1) + 1)).astype(np.int16))
    save(f.label(0), (head * label_of(0)).astype(np.uint8))


@kind("images without anything in them", "No brain voxels")
def _(f: Folder) -> None:
    for channel in range(2):
        save(f.image(3, channel), np.zeros(SHAPE, np.int16))


add(
    "colours that are none",
    "colours from 0 to 255",
    lambda f: f.describe(channel_names={"0": "rgb_to_0_1", "1": "T1w"}),
)
add(
    "large values that nothing normalises",
    "nothing normalises them",
    lambda f: f.describe(channel_names={"0": "noNorm", "1": "T1w"}),
)

# Labels

for _name, _label, _message in [
    ("NaN in a label map", labelled(np.nan), "has 1 NaN or infinite voxels"),
    ("a label that is not declared", labelled(7), "outside the declared ones"),
    ("a negative label", labelled(-1), "-1 (1 voxels)"),
    ("labels that were interpolated", labelled(0.5), "no integers: 0.5"),
    ("an empty label map", np.zeros(SHAPE, np.uint8), "is an empty label map"),
]:

    def _labels(f: Folder, label: Any = _label) -> None:
        save(f.label(0), label)

    add(_name, _message, _labels)


@kind("labels that the header scales", "5 (453 voxels)")
def _(f: Folder) -> None:
    stored = bytearray(gzip.decompress(f.label(0).read_bytes()))
    stored[112:120] = struct.pack("<2f", 0, 5)
    f.label(0).write_bytes(gzip.compress(stored))


@kind("labels outside the brain", "voxels outside the brain")
def _(f: Folder) -> None:
    label = label_of(0)
    label[0, 0, :5] = 1
    save(f.label(0), label)


@kind("a label that no case has", "No pool case has the label rim (3)")
def _(f: Folder) -> None:
    f.describe(labels={"background": 0, "edema": 1, "core": 2, "rim": 3})


# Place in space

for _name, _changes, _message in [
    ("a label map with another origin", {"origin": 0.5}, "origin (mm) -10.5"),
    ("a label map with another spacing", {"spacing": 1.01}, "spacing (mm) 1 1.01 1"),
    ("a label map that is turned", {"angle": 0.01}, "direction"),
]:

    def _place(f: Folder, changes: Any = _changes) -> None:
        save(f.label(1), label_of(1), moved(**changes))

    add(_name, _message, _place)
add(
    "a channel of another shape",
    "shape 8 8 7 instead of 9 8 7",
    lambda f: save(f.image(1, 1), image_of(1, 1)[1:]),
)
add(
    "a label map of another shape",
    "shape 8 8 7 instead of 9 8 7",
    lambda f: save(f.label(1), label_of(1)[1:]),
)


def _spacing(factor: float, *cases: int) -> Break:
    def write(f: Folder) -> None:
        for case in cases:
            for channel in range(2):
                save(f.image(case, channel), image_of(case, channel), affine_of(factor))
            save(f.label(case), label_of(case), affine_of(factor))

    return write


add("different spacings", "2 different spacings", _spacing(2, 3))
add("a case in another unit", "100 times as much or as little", _spacing(100, 3))
add(
    "all cases in metres", "mm large: its voxels have 0.001", _spacing(0.001, *range(6))
)

# Cases against each other


@kind("one image under two names", "case_2 and case_5 have the same voxels")
def _(f: Folder) -> None:
    for channel in range(2):
        save(f.image(2, channel), image_of(5, channel))


add(
    "one channel of another case",
    "have the same voxels in T1w",
    lambda f: save(f.image(2, 1), image_of(5, 1)),
)
add(
    "one channel twice",
    "FLAIR, T1w are the same",
    lambda f: save(f.image(2, 1), image_of(2)),
)
add(
    "one label map for two cases",
    "have the same label map",
    lambda f: save(f.label(0), label_of(1)),
)
