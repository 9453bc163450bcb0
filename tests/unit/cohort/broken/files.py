"""Files that are missing, damaged or of another shape."""

import gzip
from collections.abc import Callable
from typing import Any

import numpy as np
from unit.cohort.broken.kinds import add, kind
from unit.cohort.checks.broken import (
    SHAPE,
    Folder,
    cut,
    image_of,
    label_of,
    save,
    save_skewed,
)

# Files

add("an image is missing", "is missing", lambda f: f.image(2).unlink())
add("a label map is missing", "is missing", lambda f: f.label(2).unlink())


@kind("a link to nowhere", "is a link to nowhere")
def _(f: Folder) -> None:
    f.label(0).unlink()
    f.label(0).symlink_to(f.root / "gone")


@kind("a link to itself", "is a link to nowhere")
def _(f: Folder) -> None:
    f.label(0).unlink()
    f.label(0).symlink_to(f.label(0))


@kind("a folder in the place of a file", "is missing")
def _(f: Folder) -> None:
    f.image(1).unlink()
    f.image(1).mkdir()


def content(name: str, message: str, made: Callable[[bytes], bytes]) -> None:
    def write(f: Folder) -> None:
        f.image(3, 1).write_bytes(made(f.image(3, 1).read_bytes()))

    add(name, message, write)


content("an empty file", "is empty (0 bytes)", lambda b: b"")
content("a text in place of an image", "no gzip file", lambda b: b"hello, world")
content("a damaged gzip file", "is damaged", lambda b: b[:90] + b"\xff" * 9 + b[99:])
content("a gzip file of no image", "not a NIfTI", lambda b: gzip.compress(b"x" * 999))
content("a file without its last bytes", "is cut off", lambda b: b[:-8])
content(
    "fewer voxels than the header says",
    "fewer voxels",
    lambda b: gzip.compress(gzip.decompress(b)[:-100]),
)
content(
    "a pointer of git-lfs", "is a pointer", lambda b: b"version https://git-lfs.x/v1"
)
content("a pointer of git-annex", "is a pointer", lambda b: b"/annex/objects/SHA256E-s")
add("a file that is cut off", "is cut off", lambda f: cut(f.label(1), 0.5))


@kind("an image in colours", "not numbers")
def _(f: Folder) -> None:
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    save(f.image(0), rgb)


add(
    "an image of complex numbers",
    "not numbers",
    lambda f: save(f.image(0), np.ones(SHAPE, np.complex64)),
)


@kind("axes that are not at right angles", "is refused by SimpleITK")
def _(f: Folder) -> None:
    save_skewed(f.image(0))


@kind("an ending in capitals", "is not written in lower case")
def _(f: Folder) -> None:
    f.label(0).rename(f.root / "labelsTr/case_0.NII.GZ")


@kind("a label map packed and unpacked", "Two label maps for one case")
def _(f: Folder) -> None:
    save(f.root / "labelsTr/case_0.nii", label_of(0))


@kind("an unpacked file beside packed ones", "is no channel of a case")
def _(f: Folder) -> None:
    save(f.root / "imagesTr/case_0_0000.nii", image_of(0))


add(
    "a file that is no channel",
    "is no channel of a case",
    lambda f: save(f.root / "imagesTr/notes.nii.gz", image_of(7)),
)

# Channels and dimensions

add("a surplus channel", "Wrong channel", lambda f: save(f.image(0, 2), image_of(0, 2)))
for _name, _shape in {
    "a channel file of four dimensions": (*SHAPE, 2),
    "a channel file of a single slice in 2-D": SHAPE[:2],
    "a channel file of five dimensions": (*SHAPE, 1, 3),
}.items():

    def _flat(f: Folder, shape: Any = _shape) -> None:
        save(f.image(0), np.ones(shape, np.int16))

    add(_name, "Wrong channel count", _flat)
add(
    "a label map of four dimensions",
    "has 4 dimensions",
    lambda f: save(f.label(0), np.ones((*SHAPE, 2), np.uint8)),
)
