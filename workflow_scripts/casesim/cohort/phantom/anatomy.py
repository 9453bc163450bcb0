"""A head with its lesion on a grid of voxels: tissue fractions and label map."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from casesim.cohort.phantom.draws import Floats, generator, smooth_noise
from casesim.cohort.phantom.head import HEAD, Folds, around_head, head_radius, healthy
from casesim.cohort.phantom.lesions import Lesion, grow, push_back
from casesim.cohort.phantom.tissues import NUMBER, TISSUES
from casesim.errors import UserError

# Sub-voxels are at most this wide (mm) as long as that takes no more than
# _MAX_SUBDIVISION of them per axis: partial volume, at a bearable price.
_SUBVOXEL = 1.6
_MAX_SUBDIVISION = 4

# A label with fewer voxels than this is not worth learning: the lesion grows.
_MIN_LABEL_VOXELS = 8
_DEFAULT_SHAPE = (28, 56, 56)
_DEFAULT_SPACING = (3.0, 3.0, 3.0)

# Added distance (mm) where oedema cannot go.
_IMPASSABLE = 40.0


def read_grid(
    config: Mapping[str, Any],
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Shape in voxels and spacing in mm, both (z, y, x), of `cohort.phantom`."""
    z, y, x = (int(n) for n in config.get("shape", _DEFAULT_SHAPE))
    depth, height, width = (float(w) for w in config.get("spacing", _DEFAULT_SPACING))
    return (z, y, x), (depth, height, width)


def voxel_centres(size: int, width: float) -> Floats:
    """Positions of voxel centres in mm, 0 in the middle of the volume."""
    return ((np.arange(size) - (size - 1) / 2) * width).astype(np.float32)


def draw_anatomy(
    case_id: str,
    lesion: Lesion,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Fractions (tissue, z, y, x) of each voxel, and the label map (z, y, x).

    A lesion that is too small for the grid to show all its labels grows until it is
    large enough.
    """
    wanted = (1, 2, 3) if lesion.rim else (1, 2)
    for _ in range(12):
        fractions = _fractions(case_id, lesion, shape, spacing, seed)
        label = _label_map(fractions)
        if all((label == value).sum() >= _MIN_LABEL_VOXELS for value in wanted):
            return fractions, label
        foci = [
            replace(one, radius=1.12 * one.radius, oedema=1.12 * one.oedema)
            for one in lesion.foci
        ]
        lesion = replace(lesion, foci=tuple(foci), rim=1.12 * lesion.rim)
    raise UserError(
        f"A phantom of {shape} voxels of {spacing} mm (z, y, x) is too coarse to show "
        "a lesion. Raise cohort.phantom.shape in the config; the default is "
        f"{_DEFAULT_SHAPE} voxels of {_DEFAULT_SPACING} mm."
    )


def _label_map(fractions: Floats) -> NDArray[np.uint8]:
    """The tumour label with the largest fraction, where the tumour has the most."""
    parts = np.stack(
        [
            fractions[NUMBER["oedema"]],
            fractions[NUMBER["non_enhancing"]] + fractions[NUMBER["necrosis"]],
            fractions[NUMBER["enhancing"]],
        ]
    )
    label = np.where(parts.sum(axis=0) > 0.5, parts.argmax(axis=0) + 1, 0)
    return label.astype(np.uint8)


def _fractions(
    case_id: str,
    lesion: Lesion,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    seed: int,
) -> NDArray[np.float32]:
    """Tissue fractions of each voxel: one tissue per sub-voxel, averaged."""
    parts = [min(max(math.ceil(w / _SUBVOXEL), 1), _MAX_SUBDIVISION) for w in spacing]
    draw = generator(seed, case_id, "anatomy")
    # the head leaves a narrow margin in the volume, and is never larger than life
    size = draw.uniform(0.92, 1.0, 3)
    plane = min(0.48 * shape[axis] * spacing[axis] / HEAD[axis] for axis in (1, 2))
    height = 0.49 * shape[0] * spacing[0] / HEAD[0]
    limits = [min(height, plane, 1.0), min(plane, 1.0), min(plane, 1.0)]
    scale = [float(part * limit) for part, limit in zip(size, limits, strict=True)]
    axes = [
        voxel_centres(n * k, w / k) / s
        for n, k, w, s in zip(shape, parts, spacing, scale, strict=True)
    ]
    tissue = _tissue_map(axes, draw, lesion)

    count = len(TISSUES)
    coarse = np.arange(math.prod(shape)).reshape(shape)
    for axis, k in enumerate(parts):
        coarse = coarse.repeat(k, axis=axis)
    votes = np.bincount(
        coarse.ravel() * count + tissue.ravel(), minlength=math.prod(shape) * count
    )
    fractions = votes.reshape(*shape, count) / math.prod(parts)
    return np.ascontiguousarray(np.moveaxis(fractions, -1, 0), dtype=np.float32)


def _tissue_map(
    axes: Sequence[Floats], draw: np.random.Generator, lesion: Lesion
) -> NDArray[np.uint8]:
    """Tissue number at each point of a regular grid.

    Args:
        axes: coordinates along z, y and x in mm of the standard head, 0 in its
            middle.
        draw: source of what differs between heads.
        lesion: what grows in it.
    """
    ventricle_size = draw.uniform(0.75, 1.35)
    yaw, roll = draw.uniform(-0.08, 0.08, 2).tolist()
    grid = np.meshgrid(*axes, indexing="ij")
    near = around_head(*grid)
    # from here on only points near the head, one after the other

    def noise(width: float) -> Floats:
        return smooth_noise(draw, axes, width)[near]

    warp = [draw.uniform(1.5, 2.5) * noise(26.0) for _ in range(3)]
    folds = Folds(draw)
    lumps = 0.14 * noise(9.0) + 0.06 * noise(4.5)
    rim_noise, necrosis_noise = noise(7.0), noise(6.0)

    z, y, x = (coordinate[near] for coordinate in grid)
    tumour = grow(z, y, x, lesion, lumps)

    # each point shows the anatomy that the mass has pushed there
    freedom = ((1 - head_radius(z, y, x)) / 0.25).clip(0, 1)
    home = push_back(z, y, x, lesion, freedom)
    z, y, x = (point + shift for point, shift in zip(home, warp, strict=True))
    y, x = y + yaw * x, x - yaw * y
    z, x = z + roll * x, x - roll * z
    tissue, cortex, cerebellum = healthy(z, y, x, ventricle_size, folds)

    # Oedema follows white matter: what keeps it away counts as extra distance.
    white = tissue == NUMBER["white_matter"]
    deep = tissue == NUMBER["deep_grey_matter"]
    barrier = 7 * (1 - cortex / 5).clip(0, 1) + 7 * deep
    margin, oedema = (np.full(z.shape, np.inf, np.float32) for _ in range(2))
    for focus, distance in zip(lesion.foci, tumour.margins, strict=True):
        # nothing crosses the tentorium, nor the midline except through the corpus
        # callosum
        below = focus.centre[0] < -25
        stop = np.where(cerebellum == below, np.float32(0), _IMPASSABLE)
        crossed = -math.copysign(1.0, focus.centre[2]) * x
        callosum = np.where(np.abs(z - 14) < 12, crossed, _IMPASSABLE)
        stop += np.where(crossed > 0, callosum, np.float32(0))
        margin = np.minimum(margin, distance + stop)
        oedema = np.minimum(oedema, distance + stop + barrier - focus.oedema)
    solid = white | deep | (tissue == NUMBER["grey_matter"])
    inside = (margin < 0) & (tissue != NUMBER["air"])
    swollen = solid & (oedema < 0)
    # no islands of oedema
    lesion_grid = np.zeros(near.shape, bool)
    lesion_grid[near] = swollen | inside
    connected = ndimage.label(lesion_grid)[0][near]
    swollen &= np.isin(connected, np.unique(connected[inside]))
    tissue[swollen] = NUMBER["oedema"]
    tissue[inside] = NUMBER["non_enhancing"]
    necrotic = tumour.ratio < lesion.necrosis * (1 + 0.2 * necrosis_noise)
    tissue[inside & necrotic] = NUMBER["necrosis"]
    # the noise breaks the rim where it falls below -1.2
    thickness = lesion.rim * (0.9 + 0.75 * rim_noise).clip(0, 1.4)
    tissue[inside & (margin > -thickness)] = NUMBER["enhancing"]
    tissue_grid = np.full(near.shape, NUMBER["air"], np.uint8)
    tissue_grid[near] = tissue
    return tissue_grid
