"""Shape and place in space."""

import pytest
from unit.cohort.checks.broken import (
    Folder,
    affine_of,
    image_of,
    label_of,
    moved,
    only,
    save,
)


@pytest.mark.parametrize("target", ["image", "label"])
@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"origin": 0.5}, "origin (mm) -10.5"),
        ({"spacing": 1.01}, "spacing (mm) 1 1.01 1 instead of 1 1 1"),
        ({"angle": 0.01}, "direction"),
        ({"shape": 1}, "shape 8 8 7 instead of 9 8 7"),
    ],
)
def test_grids_that_disagree(
    folder: Folder, target: str, changes: dict[str, float], word: str
) -> None:
    path = folder.image(1, 1) if target == "image" else folder.label(1)
    voxels = image_of(1, 1) if target == "image" else label_of(1)
    voxels = voxels[1:] if "shape" in changes else voxels
    save(path, voxels, moved(**changes))
    problem = only(folder.check())
    assert problem.problem.startswith(
        f"{path} does not lie on the grid of {folder.image(1)}: "
    )
    assert word in problem.problem
    assert "CopyInformation" in problem.how_to_fix


def test_grids_that_differ_by_rounding_agree(folder: Folder) -> None:
    save(folder.label(1), label_of(1), moved(origin=1e-4, spacing=1 + 1e-6, angle=1e-5))
    assert folder.check() == []


def test_numbers_have_the_digits_that_tell_them_apart(folder: Folder) -> None:
    """An origin far away, and a difference in its seventh digit."""
    affine = affine_of()
    affine[0, 3] = -1234.56
    for channel in range(2):
        save(folder.image(1, channel), image_of(1, channel), affine)
    affine[0, 3] = -1234.58
    save(folder.label(1), label_of(1), affine)
    assert "origin (mm) 1234.58 -20 -30 instead of 1234.56 -20 -30" in (
        only(folder.check()).problem
    )
