"""The healthy head: shape, folds, ventricles, nuclei, posterior fossa."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from casesim.cohort.phantom.draws import Floats
from casesim.cohort.phantom.tissues import NUMBER

# Semi-axes (z, y, x) of the standard head, in mm.
HEAD = (62.0, 86.0, 69.0)


def head_radius(z: Any, y: Any, x: Any) -> Any:
    """0 in the centre of the cerebrum, 1 on its surface; coordinates in mm of the
    standard head (numbers or arrays)."""
    # flatter below than above, wider behind than in front
    upright = z * np.where(z > 0, np.float32(1), np.float32(1 / 0.72)) / HEAD[0]
    width = HEAD[2] * (1 + 0.07 * y / HEAD[1])
    return np.sqrt(upright**2 + (y / HEAD[1]) ** 2 + (x / width) ** 2)


def around_head(z: Floats, y: Floats, x: Floats) -> NDArray[np.bool_]:
    """Points that may belong to a head, however warped: the rest is skipped."""
    height = np.where(z > 0, np.float32(1 / 72), np.float32(1 / 56))
    cerebrum = (z * height) ** 2 + (y / 97) ** 2 + (x / 80) ** 2
    hindbrain = ((z + 38) / 36) ** 2 + ((y - 38) / 56) ** 2 + (x / 60) ** 2
    return (cerebrum < 1) | (hindbrain < 1)


class Folds:
    """Sulci: sheets that run inwards from the surface of the brain, where a random
    field on that surface crosses zero."""

    _step = 2.5  # mm between nodes
    _reach = 100.0  # mm from the middle of the head to the edge of the field

    def __init__(self, draw: np.random.Generator) -> None:
        size = int(2 * self._reach / self._step) + 1
        white = draw.standard_normal((size, size, size)).astype(np.float32)
        # a band of wavelengths: gyri of about 15 mm
        band = gaussian_filter(white, 1.7, truncate=3)
        self._field = band - gaussian_filter(band, 2.2, truncate=2)
        slopes = np.gradient(self._field, self._step)
        self._slope = np.sqrt(sum(slope**2 for slope in slopes))

    def distance(self, points: Floats) -> Floats:
        """Distance in mm from the nearest sheet, for points (3, n) on the surface."""
        nodes = (points + self._reach) / self._step
        value = map_coordinates(self._field, nodes, order=1, mode="nearest")
        slope = map_coordinates(self._slope, nodes, order=1, mode="nearest")
        floor = 0.3 * float(self._slope.mean())
        return np.abs(value) / np.maximum(slope, floor)


def _ellipsoid(
    z: Floats,
    y: Floats,
    x: Floats,
    centre: Sequence[float],
    semi_axes: Sequence[float],
) -> Floats:
    """Depth below the surface of an ellipsoid in mm, negative outside."""
    squared = sum(
        ((at - c) / a) ** 2
        for at, c, a in zip((z, y, x), centre, semi_axes, strict=True)
    )
    return (1 - np.sqrt(squared)) * min(semi_axes)


# Lateral ventricle, right half mirrored: (z, y, x, radius) in mm along the way from
# the frontal horn over body and atrium to the occipital and to the temporal horn.
_VENTRICLE = (
    ((6, -33, 13, 4.0), (15, -8, 10, 5.0)),
    ((15, -8, 10, 5.0), (18, 14, 12, 5.0)),
    ((18, 14, 12, 5.0), (10, 34, 21, 6.5)),
    ((10, 34, 21, 6.5), (4, 56, 19, 1.5)),
    ((10, 34, 21, 5.0), (-12, 22, 31, 2.5)),
    ((-12, 22, 31, 2.5), (-18, 0, 30, 2.0)),
)

# Deep grey nuclei, right half mirrored: centre and semi-axes (z, y, x) in mm.
_NUCLEI = (
    ((8, -20, 17), (9, 11, 5)),  # caudate
    ((0, -3, 28), (11, 17, 6)),  # putamen and pallidum
    ((4, 15, 10), (9, 14, 8)),  # thalamus
)


def healthy(
    z: Floats, y: Floats, x: Floats, ventricle_size: float, folds: Folds
) -> tuple[NDArray[np.uint8], Floats, NDArray[np.bool_]]:
    """Tissue numbers without lesion, distance from the pial surface in mm (within
    the cerebrum; negative in CSF), and where the posterior fossa is."""
    side = np.abs(x)
    ratio = np.maximum(head_radius(z, y, x), 1e-3)
    length = np.sqrt(z**2 + y**2 + x**2)
    depth = length * (1 / ratio - 1)
    # the base: frontal lobes end higher than temporal lobes, with a cistern between
    frontal = 1 / (1 + np.exp((y + 36) / 4))
    base = -42 + 20 * np.maximum(frontal, np.exp(-((x / 17) ** 2)))
    depth = np.minimum(depth, z - base)

    little = _ellipsoid(z, y, side, (-40, 48, 14), (22, 32, 36))
    stem = 12 - np.hypot(side, y - 12 + 0.25 * (z + 20))
    stem = np.minimum(stem, np.minimum(-4 - z, z + 60))
    fossa = np.maximum(little, stem)
    # tentorium: a gap of CSF between cerebrum and what lies below
    depth = np.where(little > -2.5, -2.5 - little, depth)
    cerebellum = (fossa > 0) & (fossa > depth)

    cortex = _pial_distance(z, y, x, depth, ratio, folds)
    tissue = np.full(z.shape, NUMBER["air"], np.uint8)
    brain = (depth > 0) | (fossa > 0) | ((little > -4) & (ratio < 1) & (z > -40))
    tissue[brain] = NUMBER["csf"]
    tissue[(depth > 0) & (cortex > 0)] = NUMBER["grey_matter"]
    tissue[(depth > 0) & (cortex > 3.6)] = NUMBER["white_matter"]
    for centre, semi_axes in _NUCLEI:
        inside = (_ellipsoid(z, y, side, centre, semi_axes) > 0) & (depth > 6)
        tissue[inside] = NUMBER["deep_grey_matter"]

    leaves = (little > 1) & (little < 12) & (np.sin(0.9 * z + 0.25 * y) > 0.1)
    tissue[cerebellum] = NUMBER["white_matter"]
    tissue[cerebellum & ((little > 0) & (little < 4) | leaves) & (stem < 0)] = NUMBER[
        "grey_matter"
    ]
    tissue[cerebellum & (np.maximum(little, stem) < 1)] = NUMBER["csf"]

    fluid = _ellipsoid(z, y, side, (0, 2, 0), (11, 15, 2.2 * ventricle_size)) > 0
    fluid |= _ellipsoid(z, y, side, (-36, 27, 0), (9, 5, 7)) > 0
    for start, end in _VENTRICLE:
        fluid |= _capsule(z, y, side, start, end, ventricle_size)
    tissue[fluid & brain] = NUMBER["csf"]
    plexus = _capsule(z, y, side, (12, 30, 19, 2.2), (4, 36, 22, 1.5), 1.0)
    tissue[plexus & brain] = NUMBER["choroid_plexus"]
    sinus = (side < 2.2) & (depth > 0) & (depth < 5) & ((z > 15) | (y > 60))
    tissue[sinus] = NUMBER["vessel"]
    return tissue, np.where(cerebellum, little - 1, cortex), cerebellum


def _capsule(
    z: Floats,
    y: Floats,
    x: Floats,
    start: Sequence[float],
    end: Sequence[float],
    size: float,
) -> NDArray[np.bool_]:
    """Points within a tube between two (z, y, x, radius), radii times ``size``."""
    way = [b - a for a, b in zip(start[:3], end[:3], strict=True)]
    offset = [at - a for at, a in zip((z, y, x), start[:3], strict=True)]
    dot = sum(o * w for o, w in zip(offset, way, strict=True))
    along = np.clip(dot / sum(w * w for w in way), 0, 1)
    squared = sum((o - along * w) ** 2 for o, w in zip(offset, way, strict=True))
    return squared < (size * (start[3] + along * (end[3] - start[3]))) ** 2


def _pial_distance(
    z: Floats, y: Floats, x: Floats, depth: Floats, ratio: Floats, folds: Folds
) -> Floats:
    """Distance in mm from the nearest surface of the cortex, negative in CSF: outer
    surface, sulci, the fissure between the hemispheres and the Sylvian fissures."""
    side = np.abs(x)
    distance = depth - 1.2  # subarachnoid space
    # between the hemispheres, around the corpus callosum
    callosum = np.sqrt(((z - 4) / 20) ** 2 + ((y - 2) / 44) ** 2)
    within = ((1 - callosum) * 22).clip(0)
    distance = np.minimum(distance, np.hypot(side, within) - 1.0)
    # Sylvian: a sheet that rises backwards and ends at the insula
    sheet = 0.8 * (z + 6 - 0.75 * y + 3 * np.sin(0.13 * y + 0.1 * side))
    short = np.maximum(34 - side, 0)
    ends = np.maximum(np.abs(y + 4) - 30, 0)
    sylvian = np.sqrt(sheet**2 + short**2 + ends**2) - 1.1
    distance = np.minimum(distance, sylvian)

    near = (depth > 0) & (depth < 26)
    shallow = depth[near]
    outwards = 1 / ratio[near]
    surface = np.stack([z[near], y[near], x[near]]) * outwards
    # sheets meander on their way inwards
    meander = 2.5 * np.sin(0.3 * shallow + 0.09 * surface[[1, 2, 0]])
    sheets = folds.distance(surface + meander)
    # sulci differ in depth from place to place, and narrow inwards
    reach = 16 + 4 * np.sin(0.11 * surface[0] + 0.07 * surface[1] + 0.09 * surface[2])
    past = np.maximum(shallow - reach, 0)
    width = 1.7 * (1 - shallow / reach).clip(0.3, 1)
    distance[near] = np.minimum(distance[near], np.hypot(sheets, past) - width)
    return distance
