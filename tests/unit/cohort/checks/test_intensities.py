"""Values of images."""

import numpy as np
import pytest
from unit.cohort.checks.broken import SHAPE, Folder, image_of, label_of, only, save


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_counted(folder: Folder, value: float) -> None:
    voxels = image_of(0).astype(np.float32)
    voxels[4, 4, 2:5] = value
    save(folder.image(0), voxels)
    problem = only(folder.check())
    assert problem.problem == f"{folder.image(0)} (FLAIR) has 3 NaN or infinite voxels."
    label = label_of(1).astype(np.float32)
    label[0, 0, 0] = value
    save(folder.label(1), label)
    assert f"{folder.label(1)} has 1 NaN" in folder.check()[1].problem


def test_no_brain_voxels(folder: Folder) -> None:
    save(folder.image(4, 0), np.zeros(SHAPE, np.int16))
    save(folder.image(4, 1), np.full(SHAPE, 3, np.int16))
    assert only(folder.check()).problem.startswith("No brain voxels")


def test_one_constant_channel(folder: Folder) -> None:
    save(folder.image(4, 1), np.zeros(SHAPE, np.int16))
    problem = only(folder.check(), "warning")
    assert "(T1w) is constant: it has the value 0" in problem.problem
