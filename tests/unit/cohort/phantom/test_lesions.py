"""Controls are unusual, but right."""

import numpy as np
import pytest
from scipy import ndimage
from unit.cohort.phantom.patients import FLAIR, T1GD, dice, planted

from casesim.cohort.phantom import catalogue
from casesim.cohort.phantom.catalogue import CONTROLS
from casesim.cohort.phantom.patient import Phantom


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("case", catalogue.case_ids(2))
def test_control_is_right(name: str, case: str, sound: dict[str, Phantom]) -> None:
    made = planted(name, case)
    np.testing.assert_array_equal(made.label, made.truth)
    wanted = {0, 1, 2} if name == "no_enhancement" else {0, 1, 2, 3}
    assert set(np.unique(made.label)) == wanted
    # oedema is still the bright one, whatever the scanner
    healthy = (made.image[0] > 0) & (made.label == 0)
    assert np.median(made.image[FLAIR][made.label == 1]) > np.median(
        made.image[FLAIR][healthy]
    )
    assert (made.image != sound[case].image).any()


def test_no_enhancement_removes_the_rim_only(sound: dict[str, Phantom]) -> None:
    made, usual = planted("no_enhancement", "phantom_001"), sound["phantom_001"]
    np.testing.assert_array_equal(made.label > 0, usual.label > 0)
    core = made.label == 2
    assert dice(core, usual.label > 1) > 0.95
    brain = (made.image[T1GD] > 0) & (made.label == 0)
    assert np.median(made.image[T1GD][core]) < np.median(made.image[T1GD][brain])


def test_multifocal_has_two_cores() -> None:
    for case in catalogue.case_ids(2):
        pieces, _ = ndimage.label(planted("multifocal", case).label > 1)
        sizes = np.sort(np.bincount(pieces.ravel())[1:])
        assert sizes[-2] >= 10


def test_infratentorial_lies_low(sound: dict[str, Phantom]) -> None:
    usual = min(ndimage.center_of_mass(made.label > 0)[0] for made in sound.values())
    for case in catalogue.case_ids(2):
        height, depth, _ = ndimage.center_of_mass(
            planted("infratentorial", case).label > 0
        )
        assert height < usual
        assert depth > 28  # behind


def test_small_lesion_is_small(sound: dict[str, Phantom]) -> None:
    usual = [int((made.label > 0).sum()) for made in sound.values()]
    for case in catalogue.case_ids(2):
        size = (planted("small_lesion", case).label > 0).sum()
        assert size < 0.35 * np.median(usual)


def test_odd_scanner_leaves_the_patient(sound: dict[str, Phantom]) -> None:
    made, usual = planted("odd_scanner", "phantom_001"), sound["phantom_001"]
    np.testing.assert_array_equal(made.label, usual.label)
    np.testing.assert_array_equal(made.image > 0, usual.image > 0)
