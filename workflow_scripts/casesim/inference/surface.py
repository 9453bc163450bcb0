"""How far from the surface of the reference errors lie, in bands of millimetres.

An outline drawn by another hand differs near the surface; a lesion that was not drawn,
or drawn elsewhere, differs far from it. The surface is that of the whole foreground,
all labels together: errors between labels are told by the confusion matrix
(`overlap.confusion`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BANDS_MM = (1.0, 2.0, 4.0, 8.0)
"""Upper limits of the bands; a last band holds what is farther away."""
LAST_BAND = len(BANDS_MM)


def bands(reference: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """The band of every voxel, by its distance to the other side of the surface.

    Of a background voxel that is the distance of its centre to the nearest foreground
    voxel's, and the other way round (scipy's exact Euclidean distance transform). Only
    a box around the foreground is computed, as wide as the last limit: all around it is
    farther away.

    Args:
        reference: integer (z, y, x); 0 is background.
        spacing: (z, y, x) in mm.

    Returns:
        uint8 (z, y, x): i where the distance is at most `BANDS_MM[i]` and no smaller
        limit holds; `LAST_BAND` beyond, and everywhere if the map is empty or full.
    """
    foreground = np.asarray(reference) > 0
    # Not by who reads counts alone: half of what such a job takes.
    from scipy import ndimage

    result = np.full(foreground.shape, LAST_BAND, np.uint8)
    if not foreground.any():
        return result
    box = []
    axes = set(range(foreground.ndim))
    for axis, width in enumerate(spacing):
        others = tuple(axes - {axis})
        occupied = np.flatnonzero(foreground.any(axis=others))
        margin = int(np.ceil(BANDS_MM[-1] / width)) + 1
        box.append(slice(max(0, occupied[0] - margin), occupied[-1] + margin + 1))
    inside = foreground[tuple(box)]
    if inside.all():
        return result
    outwards = ndimage.distance_transform_edt(~inside, sampling=spacing)
    inwards = ndimage.distance_transform_edt(inside, sampling=spacing)
    # One of the two is 0. A hair is taken off, so that 2 mm of 0.1 mm voxels are 2 mm.
    distance = np.maximum(outwards, inwards) * (1 - 1e-9)
    result[tuple(box)] = np.searchsorted(BANDS_MM, distance).astype(np.uint8)
    return result


@dataclass(frozen=True)
class Reference:
    """A reference label map, with what scoring any model against it needs.

    Attributes:
        labels: integer (z, y, x); 0 where it is ignored.
        bands: uint8 (z, y, x), from `bands`.
        ignored: bool (z, y, x), voxels that count nowhere; None for none.
    """

    labels: np.ndarray
    bands: np.ndarray
    ignored: np.ndarray | None = None

    @classmethod
    def of(
        cls, labels: np.ndarray, spacing: Sequence[float], ignore: int | None = None
    ) -> Reference:
        """The reference with its bands; `spacing` is (z, y, x) in mm.

        `ignore` is the number of voxels that nobody labelled.
        """
        ignored = None if ignore is None else labels == ignore
        if ignored is not None:
            labels = np.where(ignored, labels.dtype.type(0), labels)
        return cls(labels, bands(labels, spacing), ignored)

    def counted(self, prediction: np.ndarray) -> np.ndarray:
        """A prediction with background where the reference is ignored."""
        if self.ignored is None:
            return prediction
        return np.where(self.ignored, prediction.dtype.type(0), prediction)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        ignored = 0 if self.ignored is None else self.ignored.nbytes
        return self.labels.nbytes + self.bands.nbytes + ignored


def count_by_band(prediction: np.ndarray, reference: Reference) -> dict[str, list[int]]:
    """Errors of the whole foreground in each band.

    Args:
        prediction: integer (z, y, x).
        reference: of the same shape.

    Returns:
        `fp` and `fn`, each (LAST_BAND + 1,) voxels, the nearest band first.
    """
    predicted = reference.counted(prediction) > 0
    referred = reference.labels > 0
    errors = {"fp": predicted & ~referred, "fn": referred & ~predicted}
    return {
        name: np.bincount(reference.bands[where], minlength=LAST_BAND + 1).tolist()
        for name, where in errors.items()
    }
