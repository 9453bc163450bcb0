"""Edits of label maps: by hand, against trying them all, and what must not matter."""

import threading
import time
import tracemalloc
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from casesim.similarity import edits as edits_module
from casesim.similarity.edits import (
    ADDED,
    EDITS,
    FARTHEST_BORDER,
    FARTHEST_MOVE,
    MOVED,
    NARROWER,
    REMOVED,
    WIDER,
    Edit,
    edits,
    edits_of_cases,
    read_edits,
)

EVEN = (1.0, 1.0, 1.0)


def ball(radius: float, centre: tuple[int, int, int] = (12, 15, 15)) -> np.ndarray:
    grid = np.indices((24, 30, 30))
    away = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True))
    return (away <= radius**2).astype(np.uint8)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two maps that resemble each other, as a reference and a prediction do."""
    draw = np.random.default_rng(seed)
    shared, own = (
        ndimage.gaussian_filter(draw.standard_normal((14, 22, 20)), 2.5)
        for _ in range(2)
    )
    reference = shared + 0.3 * own > 0.3 * shared.std()
    return np.roll(reference, seed % 4, axis=1), shared > 0.5 * shared.std()


def test_a_map_that_fits_gains_nothing() -> None:
    found = edits(ball(6), ball(6), EVEN)
    assert found == {name: Edit() for name in EDITS}


def test_a_row_of_voxels_by_hand() -> None:
    drawn, wanted = np.zeros((2, 1, 1, 12), np.uint8)
    drawn[..., 2:8] = 3  # six voxels of any label
    wanted[..., 3:7] = 1  # four of them: Dice 8 / 10
    found = edits(drawn, wanted, (9.0, 9.0, 2.0))
    # One voxel (2 mm) off each end: Dice 1.
    assert found[NARROWER].gain == pytest.approx(0.2)
    assert found[NARROWER].by == 2
    assert found[WIDER] == found[MOVED] == Edit()
    # One voxel at each end is a rim: no piece. Three are one, on the axis there is.
    assert found[REMOVED] == Edit()
    drawn[..., 8:10] = 3  # eight against four: Dice 8 / 12
    found = edits(drawn, wanted, (9.0, 9.0, 2.0))
    assert found[REMOVED].gain == pytest.approx(8 / 9 - 8 / 12)
    assert found[REMOVED].by == pytest.approx(3 / 8)


def test_a_piece_of_a_single_slice() -> None:
    """Nothing is three voxels thick there."""
    wanted = np.zeros((1, 60, 60), np.uint8)
    wanted[:, 5:35, 5:35] = 1
    drawn = wanted.copy()
    drawn[:, 42:57, 42:57] = 1
    # An opening takes off the corners of 15 x 15, four voxels of 225.
    before = 2 * 900 / (900 + 1125)
    for thickness in (0.1, 1.0, 6.0):
        spacing = (thickness, 1.0, 1.0)
        removed = edits(drawn, wanted, spacing)[REMOVED]
        assert removed.gain == pytest.approx(2 * 900 / (900 + 904) - before)
        assert removed.by == pytest.approx(221 / 1125)
        added = edits(wanted, drawn, spacing)[ADDED]
        assert added.gain == pytest.approx(2 * 1121 / (1121 + 1125) - before)
        assert added.by == pytest.approx(221 / 900)


def thin_lesion(slices: int) -> tuple[np.ndarray, np.ndarray]:
    """A map of 8 slices without a second lesion of so many, and one with it."""
    without = np.zeros((20, 40, 40), np.uint8)
    without[2:10, 5:20, 5:20] = 1
    whole = without.copy()
    whole[14 : 14 + slices, 25:37, 25:37] = 1
    return without, whole


@pytest.mark.parametrize("slices", [1, 2])
def test_a_lesion_of_few_thick_slices_is_a_piece(slices: int) -> None:
    without, whole = thin_lesion(slices)
    for spacing in ((5.0, 1.0, 1.0), (6.0, 0.9, 1.0)):
        found = edits(without, whole, spacing)
        # But for its edges, which the opening in the plane takes off.
        missing = slices * (12 * 12 - 4)
        assert found[ADDED].by == pytest.approx(missing / without.sum())
        full = without.sum() + slices * 144
        after = 2 * (without.sum() + missing) / (full + without.sum() + missing)
        assert found[ADDED].gain == pytest.approx(after - dice(without, whole))
        assert edits(whole, without, spacing)[REMOVED].gain > 0
    # The axis may be any.
    turned = edits(without.transpose(1, 2, 0), whole.transpose(1, 2, 0), (1, 1, 5))
    assert turned[ADDED] == edits(without, whole, (5.0, 1.0, 1.0))[ADDED]
    # Where slices are hardly thicker than voxels are wide, it is a rim.
    for spacing in (EVEN, (2.0, 1.0, 1.0), (1.0, 4.0, 4.0)):
        assert edits(without, whole, spacing)[ADDED] == Edit()


def test_a_rim_in_the_plane_of_thick_slices_is_no_piece() -> None:
    wanted = np.zeros((12, 40, 40), np.uint8)
    wanted[3:9, 10:30, 10:30] = 1
    drawn = wanted.copy()
    drawn[3:9, 9:31, 9:31] = 1
    found = edits(drawn, wanted, (5.0, 1.0, 1.0))
    assert found[REMOVED] == Edit()
    assert found[NARROWER].gain > 0


def test_a_piece_cannot_be_told_from_a_rim_in_a_tiny_image() -> None:
    drawn, wanted = np.ones((2, 2, 2, 2), np.uint8)
    wanted[:, :, 1] = 0
    found = edits(drawn, wanted, EVEN)
    assert np.isnan([found[REMOVED].gain, found[ADDED].gain]).all()
    assert found[NARROWER].gain == found[WIDER].gain == 0


def test_each_defect_is_undone_by_its_edit() -> None:
    found = edits(ball(8), ball(6), EVEN)
    assert max(EDITS, key=lambda name: found[name].gain) == NARROWER
    assert found[NARROWER].gain == pytest.approx(1 - dice(ball(8), ball(6)), abs=0.05)
    assert found[NARROWER].by == 2
    found = edits(ball(4), ball(6), EVEN)
    assert max(EDITS, key=lambda name: found[name].gain) == WIDER
    assert found[WIDER].by == 2
    found = edits(ball(6), ball(6, (12, 19, 12)), EVEN)
    assert max(EDITS, key=lambda name: found[name].gain) == MOVED
    assert found[MOVED].by == pytest.approx(5)
    assert found[MOVED].gain == pytest.approx(1 - dice(ball(6), ball(6, (12, 19, 12))))
    half = ball(6)
    half[:, :15] = 0
    found = edits(half, ball(6), EVEN)
    assert max(EDITS, key=lambda name: found[name].gain) == ADDED
    missing = ball(6).sum() / half.sum() - 1
    assert found[ADDED].by == pytest.approx(missing, abs=0.15)  # the rim stays
    found = edits(ball(6), half, EVEN)
    assert max(EDITS, key=lambda name: found[name].gain) == REMOVED


def tried(
    drawn: np.ndarray, wanted: np.ndarray, spacing: tuple[float, ...]
) -> dict[str, float]:
    """The gains, by making each map and comparing it."""
    found = dict.fromkeys((NARROWER, WIDER, MOVED), 0.0)
    now, step = dice(drawn, wanted), min(spacing)
    away = ndimage.distance_transform_edt(~drawn, sampling=spacing)
    deep = ndimage.distance_transform_edt(drawn, sampling=spacing)
    for i in range(1, max(2, int(FARTHEST_BORDER / step + 1e-6)) + 1):
        reach = i * step + 1e-6
        found[WIDER] = max(found[WIDER], dice(drawn | (away <= reach), wanted) - now)
        found[NARROWER] = max(found[NARROWER], dice(deep > reach, wanted) - now)
    far = [int(FARTHEST_MOVE / side + 1e-6) for side in spacing]
    room = [(n, n) for n in far]
    drawn, wanted = np.pad(drawn, room), np.pad(wanted, room)
    # No better move is farther: the maps resemble each other.
    for move in product(*(range(-min(n, 5), min(n, 5) + 1) for n in far)):
        length = np.linalg.norm(np.multiply(move, spacing))
        if length <= FARTHEST_MOVE + 1e-6:
            moved = np.roll(drawn, move, axis=(0, 1, 2))
            found[MOVED] = max(found[MOVED], dice(moved, wanted) - now)
    return found


@pytest.mark.parametrize("spacing", [EVEN, (4.2, 4.2, 4.2), (5.0, 1.0, 0.8)])
@pytest.mark.parametrize("seed", range(3))
def test_no_edit_is_better_than_what_trying_them_all_finds(
    spacing: tuple[float, float, float], seed: int
) -> None:
    drawn, wanted = blobs(seed)
    found = edits(drawn.astype(int), wanted.astype(int), spacing)
    for name, gain in tried(drawn, wanted, spacing).items():
        assert found[name].gain == pytest.approx(gain, abs=1e-9), name


def test_the_edge_of_the_image_is_no_border() -> None:
    """Half of the volume is labelled, to its edges on five sides."""
    drawn, wanted = np.zeros((2, 8, 10, 12), np.uint8)
    drawn[:, :, :7], wanted[:, :, :5] = 1, 1
    found = edits(drawn, wanted, EVEN)
    found[WIDER] = edits(wanted, drawn, EVEN)[WIDER]
    for name in (NARROWER, WIDER):
        assert found[name].gain == pytest.approx(1 - 10 / 12)
        assert found[name].by == 2


def test_what_nobody_labelled_is_no_border_by_hand() -> None:
    """Every third slice is labelled: a map too wide by two voxels all around."""
    drawn, wanted = np.zeros((2, 9, 16, 16), np.uint8)
    drawn[:, 2:14, 2:14], wanted[:, 4:12, 4:12] = 1, 1
    ignored = np.ones(drawn.shape, bool)
    ignored[1::3] = False
    before = 2 * 64 / (144 + 64)
    found = edits(drawn, wanted, EVEN, ignored)
    assert found[NARROWER].gain == pytest.approx(1 - before)
    assert found[NARROWER].by == 2
    assert edits(wanted, drawn, EVEN, ignored)[WIDER].gain > 0.85 * (1 - before)
    # As if it were background, each slice would be all border.
    drawn[ignored] = wanted[ignored] = 0
    assert edits(drawn, wanted, EVEN)[NARROWER] == Edit()
    assert edits(wanted, drawn, EVEN)[WIDER].gain < 0.1


def test_a_piece_goes_on_where_nobody_labelled() -> None:
    wanted = np.zeros((9, 30, 30), np.uint8)
    wanted[:, 3:12, 3:12] = 1
    drawn = wanted.copy()
    drawn[:, 18:27, 18:27] = 1
    drawn[:, 3:12, 12] = 1  # a rim is none all the same
    ignored = np.ones(drawn.shape, bool)
    ignored[4] = False
    # But for the four corners, which the opening takes off.
    share = (9 * 9 - 4) / (2 * 9 * 9 + 9)
    assert edits(drawn, wanted, EVEN, ignored)[REMOVED].by == pytest.approx(share)
    rim = wanted.copy()
    rim[:, 3:12, 12] = 1
    assert edits(rim, wanted, EVEN, ignored)[REMOVED] == Edit()


def test_empty_maps_gain_nothing_and_shapes_must_agree() -> None:
    nothing = np.zeros_like(ball(3))
    for pair in ((nothing, ball(3)), (ball(3), nothing)):
        assert edits(*pair, EVEN) == {name: Edit() for name in EDITS}
    whole = np.ones((4, 4, 4), np.uint8)
    assert edits(whole, whole, EVEN) == {name: Edit() for name in EDITS}
    with pytest.raises(ValueError, match="differ"):
        edits(ball(3), ball(3)[1:], EVEN)


def test_axes_may_be_exchanged() -> None:
    drawn, wanted = blobs(1)
    spacing = (3.0, 1.0, 2.0)
    found = edits(drawn.astype(int), wanted.astype(int), spacing)
    order = (2, 0, 1)
    turned = edits(
        drawn.transpose(order).astype(int),
        wanted.transpose(order).astype(int),
        [spacing[i] for i in order],
    )
    for name in (NARROWER, WIDER, MOVED):
        assert turned[name].gain == pytest.approx(found[name].gain)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((40, 60, 60), EVEN), ((20, 60, 60), (5.0, 1.0, 1.0)), ((30, 30, 30), (0.5,) * 3)],
)
def test_memory_is_not_more_than_told(
    shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    """As far as numpy tells, which does not see all that scipy takes."""
    drawn, wanted = np.zeros((2, *shape), bool)
    drawn[8:-8, 12:-10, 12:-12] = wanted[9:-8, 10:-10, 10:-14] = True
    near = edits_module._Pair.of(drawn, wanted, spacing).memory
    wanted[0, 0, 0] = wanted[-1, -1, -1] = True  # strays
    pair = edits_module._Pair.of(drawn, wanted, spacing)
    assert pair.drawn.size == drawn.size
    tracemalloc.start()
    pair.edits()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert near <= pair.memory
    assert 0.4 * pair.memory <= peak <= pair.memory


def test_cases_wait_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes all there is, so there is one at a time; without a bound, several."""
    path = write(tmp_path / "a.nii.gz", ball(6))
    files = {f"case_{i}": (path, path) for i in range(4)}
    at_a_time: list[int] = []
    running = 0
    several = threading.Barrier(4)
    look = edits_module._Pair.edits

    def counted(pair: edits_module._Pair) -> dict[str, Edit]:
        nonlocal running
        running += 1
        at_a_time.append(running)
        if bounded:
            time.sleep(0.01)
        else:
            several.wait(timeout=60)
        found = look(pair)
        running -= 1
        return found

    monkeypatch.setattr(edits_module._Pair, "edits", counted)
    bounded = True
    alone = edits_of_cases(files, None, 4, memory=1.0)
    assert at_a_time == [1] * 4
    bounded = False
    # All four get through the barrier only if they are there at the same time.
    pd.testing.assert_frame_equal(edits_of_cases(files, None, 4), alone)


def write(path: Path, labels: np.ndarray) -> str:
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing((1.0, 1.0, 2.0))
    sitk.WriteImage(image, str(path))
    return str(path)


def test_files_of_cases_in_any_order_and_back(tmp_path: Path) -> None:
    drawn, wanted = ball(8), ball(6)
    drawn[:, :8], ignored = 9, drawn.copy()
    ignored[:, :8] = 0
    files = {
        "1": (write(tmp_path / "a.nii.gz", drawn), write(tmp_path / "b.nii.gz", wanted))
    }
    files["NA"] = (write(tmp_path / "c.nii.gz", ignored), files["1"][1])
    table = edits_of_cases(files, 9, 1)
    by_case = {case: part.drop(columns="case") for case, part in table.groupby("case")}
    expected = edits(drawn, wanted, (2.0, 1.0, 1.0), drawn == 9)
    found = dict(zip(by_case["1"]["edit"], by_case["1"]["gain"], strict=True))
    assert found == pytest.approx({name: edit.gain for name, edit in expected.items()})
    again = edits_of_cases(dict(reversed(files.items())), 9, 2)
    key = ["case", "edit"]
    pd.testing.assert_frame_equal(
        table.sort_values(key, ignore_index=True),
        again.sort_values(key, ignore_index=True),
    )
    # Nor is what could not be looked for lost.
    table.loc[0, ["gain", "by"]] = np.nan
    table.to_csv(tmp_path / "edits.tsv", sep="\t", index=False)
    pd.testing.assert_frame_equal(read_edits(tmp_path / "edits.tsv"), table)
