"""What can be wrong with a case: its label map, or one of its channels."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from casesim.cohort.phantom.anatomy import draw_anatomy
from casesim.cohort.phantom.catalogue import CHANNEL_NAMES
from casesim.cohort.phantom.draws import Floats, generator
from casesim.cohort.phantom.lesions import draw_lesion
from casesim.cohort.phantom.sequences import add_rician_noise

_SHIFT_MM = 24.0
_DILATION_WHOLE_MM = 12.0
_DILATION_CORE_MM = 6.0
_MISSED_SHARE_KEPT = 0.02


def spoil_label(
    case_id: str,
    planted: str,
    truth: NDArray[np.uint8],
    brain: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    seed: int,
) -> NDArray[np.uint8]:
    """The label map (z, y, x) with one of ``LABEL_DEFECTS``."""
    if planted == "swapped_labels":
        return np.array([0, 3, 1, 2], np.uint8)[truth]
    if planted == "shifted_label":
        return _shift(truth, spacing)
    if planted == "other_patient":
        return _other_label(case_id, truth, spacing, seed)
    if planted == "over_segmentation":
        return _over_segment(truth, brain, spacing)
    return _miss(truth)


def _shift(
    label: NDArray[np.uint8], spacing: tuple[float, float, float]
) -> NDArray[np.uint8]:
    """Moved by 24 mm in plane (less if there is no room), to where room is."""
    room = []
    for axis in (1, 2):
        occupied = np.flatnonzero((label > 0).any(axis=tuple({0, 1, 2} - {axis})))
        room += [
            (int(occupied[0]), axis, -1),
            (label.shape[axis] - 1 - int(occupied[-1]), axis, 1),
        ]
    free, axis, direction = max(room)
    step = min(round(_SHIFT_MM / spacing[axis]), free)
    return np.roll(label, direction * step, axis=axis)


def _other_label(
    case_id: str,
    truth: NDArray[np.uint8],
    spacing: tuple[float, float, float],
    seed: int,
) -> NDArray[np.uint8]:
    """The label map of a patient outside the cohort, sick in the other hemisphere."""
    own = draw_lesion(case_id, "", seed).foci[0].centre[2]
    attempt = 0
    while True:
        other = f"{case_id} confused with {attempt}"
        lesion = draw_lesion(other, "", seed)
        if lesion.foci[0].centre[2] * own < 0:
            z, y, x = truth.shape
            return draw_anatomy(other, lesion, (z, y, x), spacing, seed)[1]
        attempt += 1


def _over_segment(
    truth: NDArray[np.uint8],
    brain: NDArray[np.bool_],
    spacing: tuple[float, float, float],
) -> NDArray[np.uint8]:
    """Drawn with a broad pen: within the brain and in plane, the whole tumour 12 mm
    too wide (labelled oedema), its core 6 mm (labelled enhancing, or as core where
    nothing enhances)."""
    core_label = 3 if (truth == 3).any() else 2
    whole = _widen(truth > 0, _DILATION_WHOLE_MM, spacing) & brain
    core = _widen(truth > 1, _DILATION_CORE_MM, spacing) & brain
    label = truth.copy()
    label[whole & (truth == 0)] = 1
    label[core & (truth < 2)] = core_label
    return np.ascontiguousarray(label)


def _widen(
    mask: NDArray[np.bool_], margin: float, spacing: tuple[float, float, float]
) -> NDArray[np.bool_]:
    """Mask with all that is within ``margin`` mm of it in the same slice."""
    wide = mask.copy()
    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        away = distance_transform_edt(~mask[index], sampling=spacing[1:])
        wide[index] = away <= margin
    return wide


def _miss(truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Only the top of the lesion drawn: the uppermost slices, until they hold 2 % of
    its voxels (an empty map would not pass the checks)."""
    counts = (truth > 0).sum(axis=(1, 2))
    from_top = np.cumsum(counts[::-1])[::-1]
    lowest = int(np.flatnonzero(from_top >= _MISSED_SHARE_KEPT * counts.sum())[-1])
    label = truth.copy()
    label[:lowest] = 0
    return label


def corrupt_channel(
    case_id: str, image: NDArray[np.float32], seed: int
) -> NDArray[np.float32]:
    """One channel (of the two that matter most to a reader: FLAIR or T1gd) spoilt
    inside the brain by noise, ghosts or inverted contrast."""
    draw = generator(seed, case_id, "artefact")
    channel = int(draw.choice([CHANNEL_NAMES.index(n) for n in ("FLAIR", "T1gd")]))
    kind = draw.choice(["noise", "ghosts", "inverted"])
    plane = image[channel]
    brain = plane > 0
    level = float(np.median(plane[brain]))
    if kind == "noise":
        spoilt: Floats = add_rician_noise(plane, level, draw)
    elif kind == "ghosts":
        # copies along the phase direction, as of a head that nods
        step = plane.shape[1] // 4
        ghosts = [np.roll(plane, k * step, axis=1) for k in (1, 2, 3)]
        spoilt = 0.4 * plane + 0.6 * np.maximum.reduce(ghosts)
        spoilt = add_rician_noise(spoilt, 0.15 * level, draw)
    else:
        spoilt = np.percentile(plane[brain], 99.5) - plane
    corrupted = image.copy()
    # not zero inside the brain: zero means outside
    corrupted[channel] = np.where(brain, np.maximum(spoilt, 0.01 * level), 0)
    return corrupted
