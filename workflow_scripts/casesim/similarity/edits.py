"""Which single change of a label map would make it fit what a model draws.

Counts say that a model draws less than a label map has; where, they do not say. Here
the map itself is changed: drawn narrower or wider all around, moved, or with one piece
taken off or added, each as much as raises its Dice with the model's label map the most.
A right map fits best as it is, however hard the case is: what an edit gains has a zero,
which no difficulty moves, and so tells a border that is a voxel off from a case that
models match badly anyway.

Label maps are (z, y, x); all labels together are the foreground. Sides of voxels and
distances are in mm.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import fft, ndimage

from casesim.images import count_voxels
from casesim.memory import PROCESS_BYTES, SharedMemory

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.integer]

NARROWER, WIDER, MOVED = "narrower", "wider", "moved"
REMOVED, ADDED = "removed", "added"
EDITS = (NARROWER, WIDER, MOVED, REMOVED, ADDED)

# How far borders are moved (mm), but two voxels at least; and whole maps.
FARTHEST_BORDER = 10.0
FARTHEST_MOVE = 20.0
# A piece reaches this far along an axis, if it is there at all.
THICKNESS = 3
# Slices that are so much thicker than voxels are wide are pieces one by one.
THICK_SLICES = 2.0
# Bytes that a case takes while its edits are looked for: for each voxel of the part of
# the image with either map (distances to borders), or for each of the room in which
# maps are moved and for each move; while it is read, for each voxel of the image.
_PER_VOXEL, _PER_VOXEL_MOVED, _PER_MOVE, _PER_VOXEL_READ = 90, 24, 16, 40
# A hair, so that 3 mm of 0.1 mm voxels are 3 mm.
_HAIR = 1 + 1e-9


@dataclass(frozen=True)
class Edit:
    """The best change of one sort.

    Attributes:
        gain: by how much it raises the Dice of the foreground; 0 if none does, NaN
            where this sort cannot be looked for.
        by: how much is changed: mm, or of a piece its share of the label map.
    """

    gain: float = 0.0
    by: float = 0.0


def edits(
    reference: Labels,
    predicted: Labels,
    spacing: Sequence[float],
    ignored: Mask | None = None,
) -> dict[str, Edit]:
    """The best change of each sort.

    * `narrower`, `wider`: all voxels within so many mm of the border change sides, in
      steps of the narrowest side of a voxel;
    * `moved`: by whole voxels, up to 20 mm; found for all moves at once by the
      correlation of both maps (fast Fourier transform), which takes the world to be
      larger than the image;
    * `removed`, `added`: the largest piece that only one of the two maps has. A rim is
      no piece: what an opening by one voxel takes away does not count. The opening
      leaves out an axis on which nothing can be three voxels thick, and the axis of
      slices that are more than twice as thick as voxels are wide: there a lesion of one
      slice is a piece. In an image of less than three voxels on every axis a piece
      cannot be told from a rim, and both are NaN.

    Args:
        reference, predicted: of one shape; 0 is background.
        spacing: (z, y, x) in mm.
        ignored: where nobody labelled; None for nowhere. It counts in no Dice, its
            edge is no border, and a piece may go on in it, as where only some slices
            are labelled. A move alone takes it for background, and so gains too little
            rather than too much.

    Returns:
        An `Edit` for each of `EDITS`. Where one of the maps is empty nothing is gained.
    """
    if reference.shape != predicted.shape:
        raise ValueError(f"shapes {reference.shape} and {predicted.shape} differ")
    return _Pair.of(reference > 0, predicted > 0, spacing, ignored).edits()


@dataclass(frozen=True)
class _Pair:
    """The part of the image in which a label map and a model's are.

    Attributes:
        drawn, wanted, ignored: (z, y, x), of one shape; of no size where one of the
            first two is empty. Nothing is drawn or wanted where it is ignored.
        spacing: (z, y, x) in mm.
        steps: how many of the narrowest side borders are moved at most.
        cross: what pieces are opened with.
    """

    drawn: Mask
    wanted: Mask
    ignored: Mask
    spacing: Sequence[float]
    steps: int
    cross: Mask

    @classmethod
    def of(
        cls,
        drawn: Mask,
        wanted: Mask,
        spacing: Sequence[float],
        ignored: Mask | None = None,
    ) -> _Pair:
        if ignored is None:
            ignored = np.broadcast_to(np.False_, drawn.shape)
        else:
            drawn, wanted = drawn & ~ignored, wanted & ~ignored
        step = min(spacing)
        steps = max(2, int(FARTHEST_BORDER / step * _HAIR))
        # As far as borders are moved, within the image: its edge is no border.
        margin = [int(steps * step / side * _HAIR) for side in spacing]
        cross = _cross(drawn.shape, spacing)
        box: tuple[slice, ...] = (slice(0, 0),) * 3
        if drawn.any() and wanted.any():
            box = _box(drawn | wanted, margin)
        # Copies, or the whole image would stay in memory.
        drawn, wanted, ignored = (mask[box].copy() for mask in (drawn, wanted, ignored))
        return cls(drawn, wanted, ignored, spacing, steps, cross)

    @property
    def memory(self) -> float:
        """Bytes that `edits` takes at most."""
        if not self.drawn.size:
            return 0.0
        reach = _reach(self.spacing)
        moved = math.prod(_room(self.drawn.shape, reach)) * _PER_VOXEL_MOVED
        moves = math.prod(2 * r + 1 for r in reach) * _PER_MOVE
        return max(self.drawn.size * _PER_VOXEL, moved + moves)

    def edits(self) -> dict[str, Edit]:
        drawn, wanted, spacing = self.drawn, self.wanted, self.spacing
        if not drawn.size:
            return {name: Edit() for name in EDITS}
        return {
            **_borders(drawn, wanted, self.ignored, spacing, self.steps),
            MOVED: _moved(drawn, wanted, spacing),
            REMOVED: _piece(drawn, wanted, drawn & ~wanted, self.ignored, self.cross),
            ADDED: _piece(drawn, wanted, wanted & ~drawn, self.ignored, self.cross),
        }


def _box(mask: Mask, margin: Sequence[int]) -> tuple[slice, ...]:
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(
        slice(max(0, part.start - wider), part.stop + wider)
        for part, wider in zip(found, margin, strict=True)
    )


def _dice(both: Any, first: Any, second: Any) -> Any:
    return 2 * both / (first + second)


def _as_is(drawn: Mask, wanted: Mask) -> float:
    both = np.count_nonzero(drawn & wanted)
    return float(_dice(both, np.count_nonzero(drawn), np.count_nonzero(wanted)))


def _borders(
    drawn: Mask, wanted: Mask, ignored: Mask, spacing: Sequence[float], steps: int
) -> dict[str, Edit]:
    """The best `narrower` and `wider` of so many steps of the narrowest side."""
    step = min(spacing)
    now, aim = _as_is(drawn, wanted), np.count_nonzero(wanted)
    found = {}
    for name, side, sign in ((NARROWER, drawn | ignored, -1), (WIDER, ~drawn, 1)):
        found[name] = Edit()
        if side.all():  # no border
            continue
        away = ndimage.distance_transform_edt(side, sampling=spacing)
        # Voxels that change sides at each step, and how many of them are wanted.
        side &= ~ignored
        at = np.ceil(away[side] / step / _HAIR).astype(np.intp).clip(max=steps + 1)
        changed = np.cumsum(np.bincount(at, minlength=steps + 2))[1:-1]
        right = np.cumsum(np.bincount(at[wanted[side]], minlength=steps + 2))[1:-1]
        both = np.count_nonzero(drawn & wanted) + sign * right
        gains = _dice(both, np.count_nonzero(drawn) + sign * changed, aim) - now
        best = int(np.argmax(gains))
        found[name] = _edit(float(gains[best]), (best + 1) * step)
    return found


def _reach(spacing: Sequence[float]) -> list[int]:
    """By how many voxels maps are moved at most."""
    return [int(FARTHEST_MOVE / side * _HAIR) for side in spacing]


def _room(shape: Sequence[int], reach: Sequence[int]) -> list[int]:
    """So much room that a move does not come in again on the other side."""
    return [
        fft.next_fast_len(n + r, real=True) for n, r in zip(shape, reach, strict=True)
    ]


def _moved(drawn: Mask, wanted: Mask, spacing: Sequence[float]) -> Edit:
    reach = _reach(spacing)
    shape = _room(drawn.shape, reach)
    both = fft.irfftn(
        fft.rfftn(wanted.astype(np.float32), shape)
        * np.conj(fft.rfftn(drawn.astype(np.float32), shape)),
        shape,
    )
    lags = [np.arange(-r, r + 1) for r in reach]
    near = both[np.ix_(*(lag % n for lag, n in zip(lags, shape, strict=True)))]
    sides = [lag * side for lag, side in zip(lags, spacing, strict=True)]
    distance = np.sqrt(sum(np.ix_(*(side**2 for side in sides))))
    near = np.where(distance <= FARTHEST_MOVE * _HAIR, np.rint(near), -1)
    # Of equally good moves the shortest.
    shortest = np.where(near == near.max(), distance, np.inf)
    best = np.unravel_index(int(np.argmin(shortest)), near.shape)
    sizes = np.count_nonzero(drawn), np.count_nonzero(wanted)
    gain = _dice(float(near[best]), *sizes) - _as_is(drawn, wanted)
    return _edit(gain, float(distance[best]))


def _cross(shape: Sequence[int], spacing: Sequence[float]) -> Mask:
    """A voxel and its neighbours on the axes on which a piece has to be thick.

    Of three axes one at most is left out for its thick slices: what is one voxel thick
    on two axes is a rim.
    """
    long = [n >= THICKNESS for n in shape]
    sides = sorted(side for side, is_long in zip(spacing, long, strict=True) if is_long)
    widest = THICK_SLICES * sides[min(1, len(sides) - 1)] * _HAIR if sides else 0.0
    cross = ndimage.generate_binary_structure(3, 1)
    for axis, (side, is_long) in enumerate(zip(spacing, long, strict=True)):
        if not is_long or side > widest:
            index: list[Any] = [slice(None)] * 3
            index[axis] = [0, 2]
            cross[tuple(index)] = False
    return cross


def _piece(
    drawn: Mask, wanted: Mask, differing: Mask, ignored: Mask, cross: Mask
) -> Edit:
    """Give the largest piece of what differs to the other side."""
    if np.count_nonzero(cross) == 1:
        return Edit(np.nan, np.nan)
    # An opening, but for what may go on where nobody looked.
    thick = differing & ndimage.binary_erosion(differing | ignored, cross)
    opened = differing & ndimage.binary_dilation(thick, cross)
    pieces, number = ndimage.label(opened)
    if not number:
        return Edit()
    largest = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    gain = _as_is(drawn ^ largest, wanted) if (drawn ^ largest).any() else 0.0
    share = np.count_nonzero(largest) / np.count_nonzero(drawn)
    return _edit(gain - _as_is(drawn, wanted), share)


def _edit(gain: float, by: float) -> Edit:
    return Edit(float(gain), float(by)) if gain > 1e-6 else Edit()


def edits_of_cases(
    files: Mapping[str, tuple[str, str]],
    ignore: int | None,
    threads: int,
    memory: float = math.inf,
) -> pd.DataFrame:
    """`edits` of all cases, several at a time.

    How much memory a case takes depends on the part of the image with either map: one
    voxel that a model draws far away makes it the whole image.

    Args:
        files: case to its label map and the model's.
        ignore: number of the voxels that nobody labelled (see `edits`); or None.
        threads: how many cases there are at a time, at most.
        memory: bytes that they may take together. A case that needs more goes alone.

    Returns:
        `case, edit, gain, by`, a row for each case and sort of edit.
    """
    import SimpleITK as sitk  # noqa: N813

    shared = SharedMemory(memory - PROCESS_BYTES)

    def read(case: str) -> _Pair:
        image, predicted = (sitk.ReadImage(path) for path in files[case])
        labels, drawn = (sitk.GetArrayFromImage(read) for read in (image, predicted))
        if labels.shape != drawn.shape:
            raise ValueError(f"{files[case]}: {labels.shape} and {drawn.shape} differ")
        ignored = None if ignore is None else labels == ignore
        return _Pair.of(labels > 0, drawn > 0, image.GetSpacing()[::-1], ignored)

    def one(case: str) -> pd.DataFrame:
        with shared.taken(count_voxels(files[case][0]) * _PER_VOXEL_READ):
            pair = read(case)
        with shared.taken(pair.memory):
            found = pair.edits()
        rows = [(case, name, edit.gain, edit.by) for name, edit in found.items()]
        return pd.DataFrame(rows, columns=["case", "edit", "gain", "by"])

    with ThreadPoolExecutor(max(1, threads)) as executor:
        return pd.concat(executor.map(one, files), ignore_index=True)


def read_edits(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read `edits.tsv`; names stay text, whatever they look like."""
    text = pd.read_csv(path, sep="\t", dtype=str, na_filter=False)
    numbers = ["gain", "by"]
    text[numbers] = text[numbers].replace("", "nan")
    return text.astype(dict.fromkeys(numbers, float))
