"""Images as WebP sprites, label maps as deflated bytes: small enough for a page.

Volumes are (z, y, x) in LPS order (see `images.read_axial`). The page draws axial
slices as they are, so that the patient's right is on the left, as radiologists look at
them.
"""

import base64
import io
import os
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from casesim import images

Volume = npt.NDArray[Any]
Path = str | os.PathLike[str]

# WebP's own limit of a side; and few enough pixels that one sprite is decoded at once.
LONGEST_SIDE = 16_383
MOST_PIXELS = 4_000_000
QUALITY = 80
# Grey values beyond these percentiles of what is not background are cut off.
CUT_OFF = (0.1, 99.9)
# Shown at first: what a reader would set by hand.
SHOWN = (1.0, 99.0)


def bounding_box(inside: npt.NDArray[np.bool_]) -> list[int]:
    """`[z0, z1, y0, y1, x0, x1]` around what is true, ends excluded; zeros if none."""
    box: list[int] = []
    for axis in range(inside.ndim):
        others = tuple(a for a in range(inside.ndim) if a != axis)
        found = np.flatnonzero(inside.any(axis=others))
        box += [int(found[0]), int(found[-1]) + 1] if len(found) else [0, 0]
    return box


def crop(volume: Volume, box: list[int]) -> Volume:
    """The part of a volume inside a box of `bounding_box`."""
    z0, z1, y0, y1, x0, x1 = box
    return volume[z0:z1, y0:y1, x0:x1]


def channel(path: Path) -> dict[str, Any]:
    """One channel of a case, as the page reads it.

    What surrounds the patient (the value of the first corner) is left out. Grey values
    are put on 0 to 255, which WebP then keeps to within a few steps.

    Returns:
        `shape` (z, y, x), `spacing` (z, y, x) in mm, `box` of the voxels that are kept,
        `range` (the values of 0 and 255), `window` (low and high to show at first, in
        image values), and `sprites`: WebP pictures in base64, each a stack of whole
        axial slices of the box, from top to bottom.
    """
    volume, spacing = images.read_axial(path)
    volume = np.nan_to_num(volume.astype(np.float32), posinf=0.0, neginf=0.0)
    inside = volume != volume[0, 0, 0]
    box = bounding_box(inside)
    values = volume[inside]
    if not len(values):
        values = volume[:1, :1, :1].ravel()
    low, high = (float(value) for value in np.percentile(values, CUT_OFF))
    low = min(low, float(volume[0, 0, 0])) if volume[0, 0, 0] < high else low
    if high <= low:
        high = low + 1.0
    scaled = (crop(volume, box) - low) * (255.0 / (high - low))
    window = [float(value) for value in np.percentile(values, SHOWN)]
    return {
        "shape": list(volume.shape),
        "spacing": [float(side) for side in spacing],
        "box": box,
        "range": [low, high],
        "window": window if window[1] > window[0] else [low, high],
        "sprites": _sprites(np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)),
    }


def _sprites(volume: npt.NDArray[np.uint8]) -> list[str]:
    from PIL import Image

    slices, rows, columns = volume.shape
    if not volume.size:
        return []
    together = max(1, min(LONGEST_SIDE // rows, MOST_PIXELS // (rows * columns)))
    sprites = []
    for start in range(0, slices, together):
        stack = volume[start : start + together].reshape(-1, columns)
        stream = io.BytesIO()
        # Method 2 takes a third of the time of 4 and makes files a few per cent larger.
        Image.fromarray(stack).save(stream, "WEBP", quality=QUALITY, method=2)
        sprites.append(_text(stream.getvalue()))
    return sprites


def label_map(path: Path) -> dict[str, Any]:
    """One label map, as the page reads it (see `packed_map`)."""
    return packed_map(images.read_axial(path)[0])


def packed_map(volume: Volume) -> dict[str, Any]:
    """The voxels of a label map that are not background, deflated.

    Returns:
        `shape` (z, y, x), `box` around the labels, `bytes` of a voxel (1, or 2 for
        label numbers above 255), and `data`: the voxels of the box in C order, little
        endian, deflated (RFC 1950), in base64.
    """
    box = bounding_box(volume != 0)
    inside = crop(volume, box)
    wide = int(inside.max(initial=0)) > 255
    voxels = np.ascontiguousarray(inside, dtype="<u2" if wide else np.uint8)
    return {
        "shape": list(volume.shape),
        "box": box,
        "bytes": 2 if wide else 1,
        "data": _text(zlib.compress(voxels.tobytes(), 9)),
    }


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
