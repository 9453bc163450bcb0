"""What the network would get: numbers in 32 bits, and some contrast."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from unit.cohort.checks.broken import Folder, image_of, only, save

HOT = (4, 3, 2)


def brain(dtype: Any = np.float32) -> NDArray[Any]:
    """The first channel of case 0: 0 in the plane x = 0, 1 to 499 elsewhere."""
    return image_of(0).astype(dtype)


def with_voxel(value: float, dtype: Any = np.float32) -> NDArray[Any]:
    voxels = brain(dtype)
    voxels[HOT] = value
    return voxels


def with_background(value: float, dtype: Any = np.float32) -> NDArray[Any]:
    voxels = brain(dtype)
    voxels[:5] = value
    return voxels


@pytest.mark.parametrize(
    ("voxels", "message"),
    [
        (
            with_voxel(3e20),
            "has the value 3e+20 in one voxel (index 4, 3, 2): too large to be",
        ),
        (with_voxel(1e7), "has the value 1e+07 in one voxel (index 4, 3, 2), while"),
        (with_voxel(-1e7), "the value -1e+07 in one voxel (index 4, 3, 2), while"),
        (
            with_background(float(np.finfo(np.float32).min)),
            "has the value -3.4028235e+38 in 280 voxels: too large",
        ),
        (with_background(1e36), "has the value 1e+36 in 280 voxels: too large"),
        (with_background(-1e6), "has the value -1e+06 in 280 voxels, while nearly"),
        (
            with_voxel(1e300, np.float64),
            "holds values that 32-bit numbers cannot: 0 to 1e+300",
        ),
    ],
)
def test_values_that_leave_no_contrast(
    folder: Folder, voxels: NDArray[Any], message: str
) -> None:
    save(folder.image(0), voxels)
    problem = only(folder.check())
    assert problem.case == "case_0"
    assert problem.problem.startswith(f"{folder.image(0)} (FLAIR) ")
    assert message in problem.problem


def test_what_is_reported_is_what_nnunet_makes_of_it(folder: Folder) -> None:
    """nnU-Net's own normalisation leaves such images flat, and the usual ones not."""
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import (
        ZScoreNormalization,
    )

    scheme = ZScoreNormalization(use_mask_for_norm=False, intensityproperties={})
    for voxels, sound in (
        (brain(), True),
        (with_voxel(30000), True),
        (with_voxel(1e7), False),
        (with_background(-1e6), False),
    ):
        with np.errstate(all="ignore"):
            flat = scheme.run(voxels.copy())
        inner = flat[5:].ravel()
        spread = np.percentile(inner, 90) - np.percentile(inner, 10)
        assert (spread > 0.05) == sound
        save(folder.image(0), voxels)
        assert (folder.check() == []) == sound


@pytest.mark.parametrize(
    "voxels",
    [
        # A bright vessel, a clipped artefact, air of -1024, a mask, noise around 0.
        with_voxel(20000),
        with_background(-1024),
        (brain() > 250).astype(np.uint8),
        np.random.default_rng(0).normal(0, 1, (9, 8, 7)).astype(np.float32),
    ],
)
def test_unusual_images_are_left_alone(folder: Folder, voxels: NDArray[Any]) -> None:
    save(folder.image(0), voxels)
    assert folder.check() == []


def test_rules_follow_the_channel_s_name(folder: Folder) -> None:
    # Values that a clipped channel may have.
    save(folder.image(0), with_voxel(1e7))
    folder.describe(channel_names={"0": "CT", "1": "T1w"})
    assert folder.check() == []
    folder.describe(channel_names={"0": "noNorm", "1": "T1w"})
    problems = [p for p in folder.check() if p.case == "case_0"]
    assert "by the channel's name nothing normalises them" in (
        only(problems, "warning").problem
    )
    folder.describe(channel_names={"0": "rgb_to_0_1", "1": "T1w"})
    problems = [p for p in folder.check() if p.case == "case_0"]
    assert "says that they are colours from 0 to 255" in only(problems).problem
    folder.describe(channel_names={"0": "rescale_to_0_1", "1": "T1w"})
    assert "in one voxel (index 4, 3, 2), while" in only(folder.check()).problem
