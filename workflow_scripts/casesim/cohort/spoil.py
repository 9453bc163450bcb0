"""Defects planted on purpose into copies of real label maps, graded in strength.

So that users can ask of their own cohort: what would you have found? The user's files
are never touched: what is spoilt is the copy that the workflow imports, and which case
got what stands in `results/cohort.tsv` (column `planted`), which no decision reads.

Label maps are integer arrays (z, y, x). Only the standard library is imported with this
module: which case is spoilt is needed while Snakemake reads its rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from casesim.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Labels = NDArray[np.integer[Any]]
    Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Kind:
    """One way to spoil a label map.

    Attributes:
        unit: of the strength; empty where there is none.
        default: the strength where only a number of cases is given.
        limits: smallest and largest strength.
    """

    unit: str
    default: float
    limits: tuple[float, float]


KINDS: dict[str, Kind] = {
    "over_segmentation": Kind("voxels", 2, (1, 10)),
    "under_segmentation": Kind("voxels", 2, (1, 10)),
    "missed_lesion": Kind("share", 0.3, (0.05, 0.95)),
    "shifted_label": Kind("mm", 5, (0.5, 50)),
    "swapped_labels": Kind("", 1, (1, 1)),
    "other_patient": Kind("", 1, (1, 1)),
    "boundary_noise": Kind("voxels", 1, (0.25, 3)),
}
"""What `cohort.spoil` may plant; `boundary_noise`, as large as two raters differ, is a
control: it must not be accused."""


CONTROLS = ("boundary_noise",)


@dataclass(frozen=True)
class Spoilt:
    """What is done to one case: a name of `KINDS` and its strength."""

    kind: str
    strength: float

    def as_text(self) -> str:
        """As in the column `planted`: the kind, with its strength where it has one."""
        if not KINDS[self.kind].unit:
            return self.kind
        return f"{self.kind}:{self.strength:g}"

    @classmethod
    def from_text(cls, text: str) -> Spoilt:
        """The inverse of `as_text`."""
        kind, _, strength = text.partition(":")
        return cls(kind, float(strength) if strength else KINDS[kind].default)


def is_defect(text: str) -> bool:
    """Whether this is something to be found: `Spoilt.as_text` of no control."""
    return bool(text) and Spoilt.from_text(text).kind not in CONTROLS


def requested(spoil: Mapping[str, int | Sequence[float]]) -> list[Spoilt]:
    """What `cohort.spoil` asks for, one entry for each case.

    Args:
        spoil: for each kind a number of cases (of the default strength), or a list of
            strengths, one case for each.

    Raises:
        UserError: an unknown kind, or a strength that makes no sense.
    """
    wanted = []
    if unknown := sorted(set(spoil) - set(KINDS)):
        raise UserError(
            f"cohort.spoil in the config names {', '.join(unknown)}, which does not "
            f"exist. Choose from: {', '.join(KINDS)}."
        )
    for name, kind in KINDS.items():
        asked = spoil.get(name, 0)
        strengths = [kind.default] * asked if isinstance(asked, int) else list(asked)
        low, high = kind.limits
        if bad := [s for s in strengths if not low <= s <= high]:
            unit = f" {kind.unit}" if kind.unit else ""
            raise UserError(
                f"cohort.spoil.{name} in the config has strength {bad[0]:g}: give "
                f"{low:g} to {high:g}{unit}."
            )
        wanted += [Spoilt(name, float(strength)) for strength in strengths]
    return wanted


def assignments(
    spoil: Mapping[str, int | Sequence[float]], train_cases: Iterable[str], seed: int
) -> dict[str, str]:
    """Which train case is spoilt how.

    Drawn by case id: the same whatever the order of `train_cases`.

    Args:
        spoil: as in `requested`.
        train_cases: ids of the train cases.
        seed: `cohort.seed`.

    Returns:
        Case id to `Spoilt.as_text`, for the cases that are spoilt.

    Raises:
        UserError: as `requested`, or more defects than train cases.
    """
    wanted = requested(spoil)
    cases = sorted(set(train_cases))
    if len(wanted) > len(cases):
        raise UserError(
            f"cohort.spoil in the config plants {len(wanted)} defects, but there are "
            f"only {len(cases)} train cases. Lower the numbers, or raise "
            "cohort.train_cases."
        )
    cases.sort(key=lambda case: _digest(seed, case, "spoil"))
    chosen = dict(zip(cases, wanted, strict=False))
    return {case: spoilt.as_text() for case, spoilt in chosen.items()}


def partner(
    case: str,
    pool: Iterable[str],
    seed: int,
    patients: Mapping[str, str] | None = None,
) -> str:
    """The pool case whose label map `other_patient` puts in the place of the own one.

    It is of another patient: a case that `patients` does not name is its own.

    Raises:
        UserError: there is no such case.
    """
    patient_of = patients or {}
    own = patient_of.get(case, case)
    others = sorted(other for other in set(pool) if patient_of.get(other, other) != own)
    if not others:
        raise UserError(
            "cohort.spoil.other_patient needs a second patient in the pool. Raise "
            "cohort.pool."
        )
    return min(others, key=lambda other: _digest(seed, f"{case}/{other}", "partner"))


def spoil(
    labels: Labels,
    spoilt: Spoilt,
    case: str,
    seed: int,
    spacing: tuple[float, float, float],
    inside: Mask | None = None,
    other: Labels | None = None,
) -> Labels:
    """A spoilt copy of a label map.

    * `over_segmentation`: every background voxel within so many voxels of a label takes
      the nearest one.
    * `under_segmentation`: every labelled voxel within so many voxels of the background
      becomes background; where nothing would be left, the deepest voxels stay.
    * `missed_lesion`: a share of the labelled voxels, all on one side along a drawn
      axis, is not drawn.
    * `shifted_label`: moved by so many millimetres in the plane, where the lesion has
      most room; what would leave the image is cut off.
    * `swapped_labels`: two labels, drawn among the largest three, are exchanged.
    * `other_patient`: the map of another case, brought to the shape of this one.
    * `boundary_noise`: the border wanders by a smooth noise of so many voxels' standard
      deviation, inwards and outwards alike.

    Args:
        labels: (z, y, x), the right label map.
        spoilt: what is planted.
        case, seed: of the draws.
        spacing: (z, y, x) in mm.
        inside: (z, y, x), where labels may grow to (the brain); None for everywhere.
        other: the label map for `other_patient`, of any shape.

    Returns:
        (z, y, x), of the same type; never without any label.

    Raises:
        UserError: the case cannot be spoilt so: it has no label, or too few labels to
            be exchanged.
    """
    import numpy as np

    if not labels.any():
        raise UserError(f"cohort.spoil: {case} has no label that could be spoilt.")
    draw = np.random.default_rng(
        int.from_bytes(_digest(seed, case, spoilt.kind)[:16], "big")
    )
    inside = np.ones(labels.shape, dtype=bool) if inside is None else inside
    if spoilt.kind == "over_segmentation":
        result = _grow(labels, inside, spoilt.strength)
    elif spoilt.kind == "under_segmentation":
        result = _shrink(labels, spoilt.strength)
    elif spoilt.kind == "missed_lesion":
        result = _miss(labels, spoilt.strength, draw)
    elif spoilt.kind == "shifted_label":
        result = _shift(labels, spoilt.strength, spacing)
    elif spoilt.kind == "swapped_labels":
        result = _swap(labels, case, draw)
    elif spoilt.kind == "other_patient":
        if other is None:
            raise ValueError("other_patient needs the other label map")
        result = _fit(other, labels.shape)
    else:
        result = _wander(labels, inside, spoilt.strength, draw)
    return np.ascontiguousarray(result.astype(labels.dtype))


def _digest(seed: int, case: str, stream: str) -> bytes:
    return hashlib.sha256(f"{seed}/{stream}/{case}".encode()).digest()


def _grow(labels: Labels, inside: Mask, voxels: float) -> Labels:
    from scipy import ndimage

    away, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    wider = labels.copy()
    reached = (labels == 0) & (away <= voxels) & inside
    wider[reached] = labels[tuple(nearest)][reached]
    return wider


def _shrink(labels: Labels, voxels: float) -> Labels:
    import numpy as np
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(labels > 0)
    if not (depth > voxels).any():
        # The deepest voxels are left: a map without any label is another defect.
        voxels = float(np.nextafter(depth.max(), 0))
    return np.where(depth > voxels, labels, 0)


def _miss(labels: Labels, share: float, draw: np.random.Generator) -> Labels:
    import numpy as np

    axis, from_end = int(draw.integers(3)), bool(draw.integers(2))
    where = np.argwhere(labels > 0)
    order = np.argsort(where[:, axis], kind="stable")
    if from_end:
        order = order[::-1]
    lost = where[order[: min(len(order) - 1, round(share * len(order)))]]
    kept = labels.copy()
    kept[tuple(lost.T)] = 0
    return kept


def _shift(
    labels: Labels, millimetres: float, spacing: tuple[float, float, float]
) -> Labels:
    import numpy as np

    room = []
    for axis in (1, 2):
        occupied = np.flatnonzero((labels > 0).any(axis=tuple({0, 1, 2} - {axis})))
        room.append((int(occupied[0]), axis, -1))
        room.append((labels.shape[axis] - 1 - int(occupied[-1]), axis, 1))
    _, axis, direction = max(room)
    step = min(max(1, round(millimetres / spacing[axis])), labels.shape[axis] - 1)
    moved = np.roll(labels, direction * step, axis=axis)
    edge: list[Any] = [slice(None)] * 3
    edge[axis] = slice(0, step) if direction > 0 else slice(-step, None)
    moved[tuple(edge)] = 0
    return moved if moved.any() else np.roll(labels, direction * step, axis=axis)


def _swap(labels: Labels, case: str, draw: np.random.Generator) -> Labels:
    import numpy as np

    numbers, counts = np.unique(labels[labels > 0], return_counts=True)
    largest = numbers[np.argsort(-counts, kind="stable")][:3]
    if len(largest) < 2:
        raise UserError(
            f"cohort.spoil.swapped_labels: {case} has one label only, nothing can be "
            "exchanged. Leave it out (cohort.train_cases) or choose another kind."
        )
    first, second = draw.choice(largest, 2, replace=False)
    swapped = labels.copy()
    swapped[labels == first] = second
    swapped[labels == second] = first
    return swapped


def _fit(labels: Labels, shape: tuple[int, ...]) -> Labels:
    from scipy import ndimage

    if labels.shape == shape:
        return labels.copy()
    zoom = [new / old for new, old in zip(shape, labels.shape, strict=True)]
    return ndimage.zoom(labels, zoom, order=0, grid_mode=True, mode="grid-constant")


def _wander(
    labels: Labels, inside: Mask, voxels: float, draw: np.random.Generator
) -> Labels:
    import numpy as np
    from scipy import ndimage

    foreground = labels > 0
    # Positive outside, in voxels; the border itself lies half a voxel from the centres.
    away = ndimage.distance_transform_edt(~foreground) - 0.5
    away[foreground] = 0.5 - ndimage.distance_transform_edt(foreground)[foreground]
    noise = ndimage.gaussian_filter(draw.standard_normal(labels.shape), 3, mode="wrap")
    moved = (away < voxels * noise / noise.std()) & (inside | foreground)
    if not moved.any():
        return labels.copy()
    _, nearest = ndimage.distance_transform_edt(~foreground, return_indices=True)
    return np.where(moved, labels[tuple(nearest)], 0)
