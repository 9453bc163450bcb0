"""Virtual patients: repeatable, plausible, of any resolution."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from unit.cohort.phantom.patients import CONFIG, SEED, dice

from casesim.cohort.phantom import patient
from casesim.cohort.phantom.catalogue import CHANNEL_NAMES
from casesim.cohort.phantom.patient import Phantom
from casesim.errors import UserError


def test_same_seed_same_bytes(sound: dict[str, Phantom]) -> None:
    again = patient.generate("phantom_003", CONFIG, "", SEED)
    first = sound["phantom_003"]
    assert again.image.tobytes() == first.image.tobytes()
    assert again.label.tobytes() == first.label.tobytes()
    assert again.scanner == first.scanner


def test_other_seed_or_case_is_another_patient(sound: dict[str, Phantom]) -> None:
    first = sound["phantom_003"]
    for other in (
        patient.generate("phantom_003", CONFIG, "", SEED + 1),
        sound["phantom_004"],
    ):
        assert (other.image != first.image).any()
        assert (other.label != first.label).any()


def test_arrays_are_what_the_cohort_expects(sound: dict[str, Phantom]) -> None:
    for made in sound.values():
        assert made.image.dtype == np.float32
        assert made.image.shape == (len(CHANNEL_NAMES), 28, 56, 56)
        assert made.label.dtype == np.uint8
        assert made.label.shape == (28, 56, 56)
        assert made.spacing == (3.0, 3.0, 3.0)
        assert np.isfinite(made.image).all()
        np.testing.assert_array_equal(made.label, made.truth)


def test_background_is_zero_and_the_lesion_is_in_the_brain(
    sound: dict[str, Phantom],
) -> None:
    for made in sound.values():
        brain = made.image.min(axis=0) > 0
        # zero in one channel means zero in all
        np.testing.assert_array_equal(brain, made.image.max(axis=0) > 0)
        assert 0.2 < brain.mean() < 0.45
        assert not brain[:, [0, -1], :].any()
        assert not brain[:, :, [0, -1]].any()
        assert (made.label[~brain] == 0).all()
        pieces, _ = ndimage.label(brain)
        assert np.bincount(pieces.ravel())[1:].max() > 0.97 * brain.sum()


def test_volumes_are_sane_and_vary(sound: dict[str, Phantom]) -> None:
    counts = np.array(
        [
            [(made.label == value).sum() for value in (1, 2, 3)]
            for made in sound.values()
        ]
    )
    share = counts.sum(axis=1) / [(made.image[0] > 0).sum() for made in sound.values()]
    assert counts.min() >= 8  # every sound patient has all three
    # MSD: 5 % of the brain in the median; some more on a coarse grid
    assert 0.03 < np.median(share) < 0.12
    assert share.min() > 0.008
    assert share.max() < 0.25
    assert share.max() > 2 * share.min()
    oedema, core, rim = np.median(counts, axis=0)
    assert oedema > core
    assert oedema > rim


def test_lesions_lie_in_different_places(sound: dict[str, Phantom]) -> None:
    centres = np.array(
        [ndimage.center_of_mass(made.label > 0) for made in sound.values()]
    )
    assert (centres.std(axis=0) > [1, 4, 4]).all()
    assert 2 <= (centres[:, 2] > 27.5).sum() <= 10  # both hemispheres


def test_contrast_has_the_signs_of_radiology(sound: dict[str, Phantom]) -> None:
    for made in sound.values():
        flair, t1w, t1gd, t2w = made.image
        oedema, core, rim = (made.label == value for value in (1, 2, 3))
        # near the lesion, where the intensity non-uniformity is the same
        away = ndimage.distance_transform_edt(made.label == 0)
        healthy = (away > 3) & (away < 9) & (flair > 0)
        white = healthy & (t1w > np.percentile(t1w[healthy], 50))
        fluid = healthy & (t2w > np.percentile(t2w[healthy], 98))

        def median(channel: NDArray[Any], mask: NDArray[np.bool_]) -> float:
            return float(np.median(channel[mask]))

        assert median(flair, oedema) > 1.2 * median(flair, white)
        assert median(flair, fluid) < 0.9 * median(flair, white)
        assert median(t1w, oedema) < median(t1w, white)
        assert median(t1w, fluid) < median(t1w, white)
        assert median(t1gd, rim) > median(t1gd, white)
        assert median(t1gd, rim) > 1.2 * median(t1gd, core)
        assert median(t2w, oedema) > 1.2 * median(t2w, white)
        assert median(t2w, core) > 1.2 * median(t2w, white)
        assert median(t2w, fluid) > 1.2 * median(t2w, white)


def test_cases_come_from_all_scanners(sound: dict[str, Phantom]) -> None:
    assert {made.scanner for made in sound.values()} == {0, 1, 2}
    one = patient.generate("phantom_001", {**CONFIG, "scanners": 1}, "", SEED)
    assert one.scanner == 0
    np.testing.assert_array_equal(one.label, sound["phantom_001"].label)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ([24, 40, 44], [4.5, 3.2, 3.0]),
        ([16, 16, 16], [3.0, 3.0, 3.0]),
        # much larger than a head
        ([24, 30, 28], [10.0, 10.0, 10.0]),
    ],
)
def test_other_grids(shape: list[int], spacing: list[float]) -> None:
    config = {"shape": shape, "spacing": spacing, "scanners": 2}
    made = patient.generate("phantom_002", config, "", SEED)
    assert list(made.label.shape) == shape
    assert list(made.spacing) == spacing
    assert np.isfinite(made.image).all()
    assert set(np.unique(made.label)) == {0, 1, 2, 3}
    assert ((made.image > 0).all(axis=0) | (made.label == 0)).all()


def test_finer_grid_shows_the_same_patient(sound: dict[str, Phantom]) -> None:
    """Anatomy does not depend on the grid, only its sampling does."""
    fine = patient.generate(
        "phantom_005",
        {"shape": [28, 112, 112], "spacing": [3.0, 1.5, 1.5], "scanners": 3},
        "",
        SEED,
    )
    blocks = (fine.label > 0).reshape(28, 56, 2, 56, 2).mean(axis=(2, 4)) > 0.5
    assert dice(blocks, sound["phantom_005"].label > 0) > 0.9


def test_a_grid_without_room_is_refused() -> None:
    config = {**CONFIG, "shape": [2, 3, 3]}
    with pytest.raises(UserError, match=r"cohort\.phantom\.shape"):
        patient.generate("phantom_001", config, "", SEED)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(UserError, match="upside_down"):
        patient.generate("phantom_001", CONFIG, "upside_down", SEED)
