"""Plans that cannot work are refused, with what to set."""

from typing import Any

import pytest

from casesim.errors import UserError
from casesim.nnunet.plausibility import check_plans


def plans(
    patch: list[int],
    spacing: list[float],
    batch: int = 2,
    order: tuple[int, ...] = (0, 1, 2),
) -> dict[str, Any]:
    name = "2d" if len(patch) == 2 else "3d_fullres"
    planned = {"patch_size": patch, "spacing": spacing, "batch_size": batch}
    return {"configurations": {name: planned}, "transpose_forward": list(order)}


def check(
    planned: dict[str, Any],
    spacing: list[float],
    shape: list[int],
    target: list[float] | None = None,
) -> None:
    (name,) = planned["configurations"]
    fingerprint = {"spacings": [spacing] * 3, "shapes_after_crop": [shape] * 3}
    check_plans(planned, name, fingerprint, {"target_spacing": target})


@pytest.mark.parametrize(
    ("planned", "spacing", "shape"),
    [
        # MSD's brain tumours, small phantoms, thick slices, a slab, coarse on purpose.
        (plans([192, 160], [1, 1], 16), [1, 1, 1], [138, 169, 138]),
        (plans([56, 48], [3, 3], 6), [3, 3, 3], [28, 54, 48]),
        (plans([128, 128, 128], [1, 1, 1]), [1, 1, 1], [138, 169, 138]),
        (plans([5, 256, 256], [8, 0.8, 0.8]), [8, 0.8, 0.8], [5, 250, 240]),
        (plans([64, 48], [3, 3], 12), [1, 1, 1], [138, 169, 138]),
        (plans([64, 64], [1, 1], order=(2, 0, 1)), [1, 1, 4], [60, 62, 20]),
    ],
)
def test_plans_that_work(
    planned: dict[str, Any], spacing: list[float], shape: list[int]
) -> None:
    check(planned, spacing, shape)


def test_slices_along_the_wrong_axis() -> None:
    """One slice of 1 mm, in plane 3 mm: nnU-Net cuts it into lines."""
    planned = plans([1, 44], [1, 3], order=(1, 0, 2))
    with pytest.raises(UserError) as error:
        check(planned, [1, 3, 3], [1, 44, 44])
    message = str(error.value)
    assert "patch has 1 x 44 voxels (z, x): no network can be trained" in message
    assert "largest spacing for the slices' own, here y" in message
    assert "the cases have 1 x 3 x 3 mm" in message
    assert "set nnunet.target_spacing: [1, 1, 1]." in message


@pytest.mark.parametrize(
    ("planned", "shape", "target", "messages"),
    [
        (plans([4, 64], [1, 1]), [9, 4, 60], None, ["4 x 64 voxels (y, x)"]),
        (
            plans([1, 64, 64], [1, 1, 1]),
            [1, 64, 64],
            None,
            ["1 x 64 x 64 voxels (z, y, x): no network"],
        ),
        (
            plans([4, 4, 64], [1, 1, 1]),
            [4, 4, 60],
            None,
            ["4 x 4 x 64", "take out cases of only a few"],
        ),
        (
            plans([64, 64], [6, 6]),
            [99, 120, 120],
            [1.0, 6.0, 6.0],
            ["but the images have 20 x 20 at its spacing of 6 x 6 mm", "[1, 1, 1], or"],
        ),
        (plans([64, 64], [1, 1], 1), [9, 60, 60], None, ["Set nnunet.batch_size to 2"]),
        (
            plans([64, 64], [0.1, 0.1]),
            [9, 60, 60],
            [1.0, 0.1, 0.1],
            ["10 times finer", "cases have 1 x 1 x 1 mm", "nnunet.target_spacing near"],
        ),
        (
            plans([8, 8], [9, 9], 1),
            [9, 99, 99],
            [9.0, 9.0, 9.0],
            # All at once.
            ["9 times coarser", "nnunet.batch_size"],
        ),
    ],
)
def test_plans_that_cannot_work(
    planned: dict[str, Any],
    shape: list[int],
    target: list[float] | None,
    messages: list[str],
) -> None:
    with pytest.raises(UserError, match="cannot work:") as error:
        check(planned, [1, 1, 1], shape, target)
    for message in messages:
        assert message in str(error.value)
