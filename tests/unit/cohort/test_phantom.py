"""The synthetic cohort: physics, anatomy, planted defects."""

import math
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import rice

from casesim.cohort import phantom
from casesim.cohort.phantom import (
    CHANNEL_NAMES,
    CONTROLS,
    IMAGE_DEFECTS,
    LABEL_DEFECTS,
    Phantom,
    Protocol,
    Tissue,
)
from casesim.errors import UserError

CONFIG: dict[str, Any] = {
    "shape": [28, 56, 56],
    "spacing": [3.0, 3.0, 3.0],
    "scanners": 3,
}
SEED = 7
FLAIR, T1W, T1GD, T2W = range(4)

# The protocol of the table below: T1w TR 500 TE 12, T2w TR 4500 TE 95, FLAIR TR 9000
# TE 120 TI 1700 (ms).
PROTOCOL = Protocol(
    t1w=(500, 12),
    t2w=(4500, 95),
    flair=(9000, 120, 1700),
    gain=(1.0, 1.0, 1.0, 1.0),
    noise=0.0,
    non_uniformity=0.0,
    blur=(0.0, 0.0, 0.0),
)


@pytest.fixture(scope="module")
def sound() -> dict[str, Phantom]:
    """Patients with nothing planted."""
    return {case: planted("", case) for case in phantom.case_ids(12)}


@cache
def planted(name: str, case: str) -> Phantom:
    return phantom.generate(case, CONFIG, name, SEED)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


# ------------------------------------------------------------------ signal equations


def test_spin_echo_by_hand() -> None:
    # TR = T1 and TE = T2: density (1 - 1/e) / e
    assert phantom.spin_echo(500, 80, 0.5, tr=500, te=80) == pytest.approx(
        0.5 * (1 - 1 / math.e) / math.e
    )


def test_inversion_recovery_by_hand() -> None:
    # TI at the null of an infinite TR leaves only the exp(-TR / T1) term
    signal = phantom.inversion_recovery(
        1000, 100, 1.0, tr=3000, te=100, ti=1000 * math.log(2)
    )
    assert signal == pytest.approx(math.exp(-3) * math.exp(-1))
    # before the null the magnetisation is negative, its magnitude is seen
    assert phantom.inversion_recovery(1000, 100, 1.0, tr=1e9, te=0, ti=0) == 1.0


def test_contrast_agent_shortens_t1() -> None:
    assert phantom.enhanced_t1(1000, 1.0) == pytest.approx(500)
    assert phantom.enhanced_t1(800, 0.0) == pytest.approx(800)


@pytest.mark.parametrize(
    ("tissue", "relative_to_white_matter"),
    [
        ("grey_matter", (1.16, 0.82, 0.84, 1.38)),
        ("csf", (0.01, 0.42, 0.41, 3.12)),
        ("oedema", (1.79, 0.74, 0.77, 2.37)),
        ("non_enhancing", (1.32, 0.65, 0.70, 2.08)),
        ("necrosis", (0.72, 0.49, 0.51, 2.98)),
        ("enhancing", (1.18, 0.67, 1.29, 1.76)),
    ],
)
def test_contrasts_equal_a_table_computed_elsewhere(
    tissue: str, relative_to_white_matter: tuple[float, ...]
) -> None:
    own = np.array(phantom.signals(phantom.TISSUES[tissue], PROTOCOL))
    white = np.array(phantom.signals(phantom.TISSUES["white_matter"], PROTOCOL))
    np.testing.assert_allclose(own / white, relative_to_white_matter, atol=0.011)


def test_nothing_gives_no_signal() -> None:
    assert phantom.signals(Tissue(1000, 100, 0.0, 0.0), PROTOCOL) == (0, 0, 0, 0)


@pytest.mark.parametrize("signal", [0.0, 1.0, 10.0])
def test_noise_has_the_moments_of_a_rice_distribution(signal: float) -> None:
    sigma = 0.7
    noisy = phantom.add_rician_noise(
        np.full((60, 60, 60), signal), sigma, np.random.default_rng(0)
    )
    expected = rice(signal / sigma, scale=sigma)
    assert noisy.mean() == pytest.approx(expected.mean(), rel=0.01)
    assert noisy.std() == pytest.approx(expected.std(), rel=0.01)
    assert noisy.min() >= 0


# --------------------------------------------------------------------- determinism


def test_same_seed_same_bytes(sound: dict[str, Phantom]) -> None:
    again = phantom.generate("phantom_003", CONFIG, "", SEED)
    first = sound["phantom_003"]
    assert again.image.tobytes() == first.image.tobytes()
    assert again.label.tobytes() == first.label.tobytes()
    assert again.scanner == first.scanner


def test_other_seed_or_case_is_another_patient(sound: dict[str, Phantom]) -> None:
    first = sound["phantom_003"]
    for other in (
        phantom.generate("phantom_003", CONFIG, "", SEED + 1),
        sound["phantom_004"],
    ):
        assert (other.image != first.image).any()
        assert (other.label != first.label).any()


def test_import_needs_the_standard_library_only() -> None:
    """Case names and planted defects are asked for on every start of Snakemake."""
    code = (
        "import sys; from casesim.cohort import phantom; phantom.assignments("
        "{'defects': {'shifted_label': 1}}, phantom.case_ids(9), 0); "
        "print(sorted({'numpy', 'scipy', 'SimpleITK', 'torch'} & set(sys.modules)))"
    )
    path = [entry for entry in sys.path if entry]
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"


# ------------------------------------------------------------------- sound patients


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
    one = phantom.generate("phantom_001", {**CONFIG, "scanners": 1}, "", SEED)
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
    made = phantom.generate("phantom_002", config, "", SEED)
    assert list(made.label.shape) == shape
    assert list(made.spacing) == spacing
    assert np.isfinite(made.image).all()
    assert set(np.unique(made.label)) == {0, 1, 2, 3}
    assert ((made.image > 0).all(axis=0) | (made.label == 0)).all()


def test_finer_grid_shows_the_same_patient(sound: dict[str, Phantom]) -> None:
    """Anatomy does not depend on the grid, only its sampling does."""
    fine = phantom.generate(
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
        phantom.generate("phantom_001", config, "", SEED)


# -------------------------------------------------------------------------- defects


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
    for case in phantom.case_ids(4):
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


# ------------------------------------------------------------------------- controls


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("case", phantom.case_ids(2))
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
    for case in phantom.case_ids(2):
        pieces, _ = ndimage.label(planted("multifocal", case).label > 1)
        sizes = np.sort(np.bincount(pieces.ravel())[1:])
        assert sizes[-2] >= 10


def test_infratentorial_lies_low(sound: dict[str, Phantom]) -> None:
    usual = min(ndimage.center_of_mass(made.label > 0)[0] for made in sound.values())
    for case in phantom.case_ids(2):
        height, depth, _ = ndimage.center_of_mass(
            planted("infratentorial", case).label > 0
        )
        assert height < usual
        assert depth > 28  # behind


def test_small_lesion_is_small(sound: dict[str, Phantom]) -> None:
    usual = [int((made.label > 0).sum()) for made in sound.values()]
    for case in phantom.case_ids(2):
        size = (planted("small_lesion", case).label > 0).sum()
        assert size < 0.35 * np.median(usual)


def test_odd_scanner_leaves_the_patient(sound: dict[str, Phantom]) -> None:
    made, usual = planted("odd_scanner", "phantom_001"), sound["phantom_001"]
    np.testing.assert_array_equal(made.label, usual.label)
    np.testing.assert_array_equal(made.image > 0, usual.image > 0)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(UserError, match="upside_down"):
        phantom.generate("phantom_001", CONFIG, "upside_down", SEED)


# ----------------------------------------------------------------------- assignments

numbers = st.integers(0, 4)
planted_config = st.fixed_dictionaries(
    {
        "defects": st.dictionaries(
            st.sampled_from(LABEL_DEFECTS + IMAGE_DEFECTS), numbers
        ),
        "controls": st.dictionaries(st.sampled_from(CONTROLS), numbers),
    }
)


@given(config=planted_config, seed=st.integers(0, 9), data=st.data())
def test_assignments_plant_what_is_asked_for(
    config: dict[str, dict[str, int]], seed: int, data: st.DataObject
) -> None:
    cases = phantom.case_ids(50)
    found = phantom.assignments(config, cases, seed)
    wanted = {**config["defects"], **config["controls"]}
    assert set(found) <= set(cases)
    for name in LABEL_DEFECTS + IMAGE_DEFECTS + CONTROLS:
        assert list(found.values()).count(name) == wanted.get(name, 0)
    shuffled = data.draw(st.permutations(cases))
    assert phantom.assignments(config, shuffled, seed) == found


def test_assignments_depend_on_the_seed() -> None:
    config = {"defects": {"swapped_labels": 3}}
    found = {
        tuple(sorted(phantom.assignments(config, phantom.case_ids(12), seed)))
        for seed in range(10)
    }
    assert len(found) > 5


def test_nothing_planted_without_being_asked() -> None:
    assert phantom.assignments({}, phantom.case_ids(5), 0) == {}


def test_too_many_planted_cases_are_refused() -> None:
    config = {"defects": {"swapped_labels": 2}, "controls": {"multifocal": 1}}
    assert len(phantom.assignments(config, phantom.case_ids(3), 0)) == 3
    with pytest.raises(UserError, match="3 defects and controls, but there are only 2"):
        phantom.assignments(config, phantom.case_ids(2), 0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"defects": {"multifocal": 1}}, "multifocal"),
        ({"controls": {"no_such": 1}}, "no_such"),
        ({"defects": {"missed_lesion": -1}}, "missed_lesion"),
    ],
)
def test_bad_names_and_numbers_are_refused(
    config: dict[str, dict[str, int]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        phantom.assignments(config, phantom.case_ids(3), 0)


def test_case_ids() -> None:
    assert phantom.case_ids(2) == ["phantom_001", "phantom_002"]
    assert phantom.case_ids(0) == []
    assert phantom.case_ids(100)[-1] == "phantom_100"
