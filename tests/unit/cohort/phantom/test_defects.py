"""A defect changes what it is meant to change, and nothing else."""

import numpy as np
import pytest
from scipy import ndimage
from unit.cohort.phantom.patients import FLAIR, T1GD, dice, planted

from casesim.cohort.phantom import catalogue
from casesim.cohort.phantom.catalogue import LABEL_DEFECTS
from casesim.cohort.phantom.patient import Phantom


@pytest.mark.parametrize("name", LABEL_DEFECTS)
@pytest.mark.parametrize("case", ["phantom_001", "phantom_002"])
def test_label_defect_spoils_the_label_only(
    name: str, case: str, sound: dict[str, Phantom]
) -> None:
    made = planted(name, case)
    assert made.image.tobytes() == sound[case].image.tobytes()
    np.testing.assert_array_equal(made.truth, sound[case].label)
    assert made.label.shape == made.truth.shape
    assert made.label.dtype == np.uint8
    assert (made.label > 0).any()
    wrong = [dice(made.label == v, made.truth == v) for v in (1, 2, 3)]
    assert np.mean(wrong) < 0.75


def test_swapped_labels_are_all_wrong(sound: dict[str, Phantom]) -> None:
    made = planted("swapped_labels", "phantom_001")
    for right, claimed in ((0, 0), (1, 3), (2, 1), (3, 2)):
        assert (made.label[made.truth == right] == claimed).all()


@pytest.mark.parametrize("case", ["phantom_001", "phantom_002"])
def test_shifted_label_is_the_same_map_24_mm_away(case: str) -> None:
    made = planted("shifted_label", case)
    np.testing.assert_array_equal(
        np.bincount(made.label.ravel()), np.bincount(made.truth.ravel())
    )
    moved = np.array(ndimage.center_of_mass(made.label > 0)) - ndimage.center_of_mass(
        made.truth > 0
    )
    assert sorted(np.abs(moved)) == pytest.approx([0, 0, 8], abs=1e-6)
    # it lies where the roll did not wrap around
    assert ndimage.label(made.label > 0)[1] == ndimage.label(made.truth > 0)[1]


@pytest.mark.parametrize("case", ["phantom_001", "phantom_002"])
def test_other_patient_lies_elsewhere(case: str) -> None:
    made = planted("other_patient", case)
    assert dice(made.label > 0, made.truth > 0) < 0.25
    assert set(np.unique(made.label)) == {0, 1, 2, 3}
    left = ndimage.center_of_mass(made.label > 0)[2] < 27.5
    assert left != (ndimage.center_of_mass(made.truth > 0)[2] < 27.5)


@pytest.mark.parametrize("case", ["phantom_001", "phantom_002"])
def test_over_segmentation_contains_the_truth(case: str) -> None:
    made = planted("over_segmentation", case)
    whole, true_whole = made.label > 0, made.truth > 0
    core, true_core = made.label > 1, made.truth > 1
    assert (whole | ~true_whole).all()
    assert (core | ~true_core).all()
    assert whole.sum() > 1.5 * true_whole.sum()
    assert core.sum() > 1.3 * true_core.sum()
    # no further than 12 mm (4 voxels) in plane, and within the brain
    for drawn, right in zip(whole, true_whole, strict=True):
        if right.any():
            assert ndimage.distance_transform_edt(~right)[drawn].max() <= 4
        else:
            assert not drawn.any()
    assert (made.image[0][whole] > 0).all()


@pytest.mark.parametrize("case", ["phantom_001", "phantom_002"])
def test_missed_lesion_keeps_a_fragment(case: str) -> None:
    made = planted("missed_lesion", case)
    kept = made.label > 0
    assert (made.label[kept] == made.truth[kept]).all()
    assert 0.02 * (made.truth > 0).sum() <= kept.sum() < 0.25 * (made.truth > 0).sum()


def test_corrupted_channel_leaves_all_else(sound: dict[str, Phantom]) -> None:
    hit = set()
    for case in catalogue.case_ids(4):
        made, before = planted("corrupted_channel", case), sound[case]
        np.testing.assert_array_equal(made.label, before.label)
        np.testing.assert_array_equal(made.truth, before.truth)
        np.testing.assert_array_equal(made.image > 0, before.image > 0)
        changed = [
            channel
            for channel in range(4)
            if (made.image[channel] != before.image[channel]).any()
        ]
        assert len(changed) == 1
        hit.update(changed)
        brain = before.image[0] > 0
        similar = np.corrcoef(
            made.image[changed[0]][brain], before.image[changed[0]][brain]
        )[0, 1]
        assert similar < 0.8
    assert hit == {FLAIR, T1GD}
