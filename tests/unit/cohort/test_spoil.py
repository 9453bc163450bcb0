"""Label maps spoilt on purpose: what each defect does, who gets it, and what stays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from casesim.cohort.importing import import_case
from casesim.cohort.loading import load_cohort
from casesim.cohort.spoil import (
    KINDS,
    Spoilt,
    assignments,
    is_defect,
    partner,
    requested,
    spoil,
)
from casesim.errors import UserError
from casesim.settings import validate

SPACING = (3.0, 1.0, 2.0)


def lesion() -> np.ndarray:
    """A ball of label 1 (edema) around one of 2 with a core of 3."""
    z, y, x = np.ogrid[:16, :40, :40]
    away = np.sqrt((z - 8) ** 2 + (y - 18) ** 2 + (x - 15) ** 2)
    return np.select([away < 3, away < 5, away < 7], [3, 2, 1], 0).astype(np.uint8)


def spoilt(kind: str, strength: float | None = None, **more: Any) -> np.ndarray:
    what = Spoilt(kind, KINDS[kind].default if strength is None else strength)
    return spoil(lesion(), what, "a", 0, SPACING, **more)


@pytest.mark.parametrize("voxels", [1, 2, 3])
def test_over_and_under_segmentation_move_the_border_by_voxels(voxels: int) -> None:
    before = lesion() > 0
    wide, narrow = (
        spoilt("over_segmentation", voxels),
        spoilt("under_segmentation", voxels),
    )
    reach = ndimage.distance_transform_edt(~before) <= voxels
    np.testing.assert_array_equal(wide > 0, reach)
    deep = ndimage.distance_transform_edt(before) > voxels
    np.testing.assert_array_equal(narrow > 0, deep)
    # What was labelled keeps its label, what is new takes the nearest one.
    np.testing.assert_array_equal(wide[before], lesion()[before])
    assert set(np.unique(wide[reach & ~before])) == {1}


def test_over_segmentation_stays_inside() -> None:
    inside = np.ones((16, 40, 40), bool)
    inside[:, :, :12] = False
    wide = spoilt("over_segmentation", 3, inside=inside)
    assert not ((wide > 0) & (lesion() == 0))[:, :, :12].any()


def test_under_segmentation_leaves_something() -> None:
    narrow = spoilt("under_segmentation", 10)
    assert 0 < (narrow > 0).sum() < 50


@pytest.mark.parametrize("share", [0.1, 0.3, 0.95])
def test_a_missed_share_lies_on_one_side(share: float) -> None:
    before, after = lesion() > 0, spoilt("missed_lesion", share) > 0
    assert not (after & ~before).any()
    assert (before & ~after).sum() / before.sum() == pytest.approx(share, abs=0.01)
    lost, kept = np.argwhere(before & ~after), np.argwhere(after)
    sides = [
        (lost[:, axis].max() <= kept[:, axis].min())
        or (lost[:, axis].min() >= kept[:, axis].max())
        for axis in range(3)
    ]
    assert any(sides)


def test_a_shift_is_in_millimetres_and_in_the_plane() -> None:
    centre = np.array(ndimage.center_of_mass(lesion() > 0))
    moved = np.array(ndimage.center_of_mass(spoilt("shifted_label", 6) > 0))
    step = (moved - centre) * SPACING
    assert step[0] == 0
    assert np.abs(step).max() == pytest.approx(6)
    assert np.bincount(spoilt("shifted_label", 6).ravel())[1:].tolist() == (
        np.bincount(lesion().ravel())[1:].tolist()
    )


def test_swapped_labels_are_two_and_the_rest_stays() -> None:
    changed = spoilt("swapped_labels")
    pairs = set(zip(lesion().ravel().tolist(), changed.ravel().tolist(), strict=True))
    swapped = {pair for pair in pairs if pair[0] != pair[1]}
    assert len(swapped) == 2
    (a, b), (c, d) = swapped
    assert (a, b) == (d, c)
    one = np.where(lesion() > 0, 2, 0)
    with pytest.raises(UserError, match="one label only"):
        spoil(one, Spoilt("swapped_labels", 1), "a", 0, SPACING)


def test_another_patients_map_is_brought_to_the_shape() -> None:
    other = np.zeros((8, 20, 20), np.uint8)
    other[2:4, 5:10, 5:10] = 3
    changed = spoilt("other_patient", other=other)
    assert changed.shape == lesion().shape
    where = np.argwhere(changed == 3)
    assert where.min(axis=0).tolist() == [4, 10, 10]
    assert where.max(axis=0).tolist() == [7, 19, 19]
    assert len(where) == 4 * 10 * 10


def test_boundary_noise_goes_both_ways_and_keeps_the_volume() -> None:
    before, after = lesion() > 0, spoilt("boundary_noise") > 0
    out, inwards = (after & ~before).sum(), (before & ~after).sum()
    assert min(out, inwards) > 0
    assert after.sum() == pytest.approx(before.sum(), rel=0.3)
    assert 2 * (before & after).sum() / (before.sum() + after.sum()) > 0.75


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(sorted(set(KINDS) - {"other_patient"})))
def test_nothing_is_left_empty_and_draws_repeat(seed: int, kind: str) -> None:
    draw = np.random.default_rng(seed)
    labels = np.zeros((5, 12, 12), np.uint8)
    corner = draw.integers(0, 4, 3)
    labels[corner[0] : 5, corner[1] : corner[1] + 6, corner[2] : corner[2] + 6] = 1
    labels[corner[0], corner[1] : corner[1] + 3, corner[2]] = 2
    before = labels.copy()
    what = Spoilt(kind, KINDS[kind].limits[1])
    first, second = (spoil(labels, what, "a", seed, SPACING) for _ in range(2))
    assert first.any()
    assert first.dtype == labels.dtype
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(labels, before)


def test_a_case_without_a_label_cannot_be_spoilt() -> None:
    with pytest.raises(UserError, match="no label"):
        spoil(np.zeros((2, 2, 2), int), Spoilt("boundary_noise", 1), "a", 0, SPACING)


def test_who_gets_what_depends_on_ids_and_seed_alone() -> None:
    cases = [f"case_{i}" for i in range(12)]
    wish: dict[str, Any] = {"over_segmentation": [1, 3], "swapped_labels": 2}
    wish["boundary_noise"] = 1
    found = assignments(wish, cases, 0)
    assert found == assignments(wish, cases[::-1], 0)
    assert found != assignments(wish, cases, 1)
    assert sorted(found.values()) == [
        *("boundary_noise:1", "over_segmentation:1", "over_segmentation:3"),
        *("swapped_labels", "swapped_labels"),
    ]
    assert partner("a", [*"abc"], 0) == partner("a", [*"cba"], 0) != "a"
    assert partner("a", [*"abc"], 0, {"a": "p", "b": "p"}) == "c"


def test_texts_are_read_back() -> None:
    for what in requested({"missed_lesion": [0.1, 0.3], "other_patient": 1}):
        assert Spoilt.from_text(what.as_text()) == what
    assert is_defect("missed_lesion:0.1")
    assert not is_defect("boundary_noise:1")
    assert not is_defect("")


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"mystery": 1}, r"names mystery.*Choose from: over_segmentation"),
        ({"shifted_label": [0.1]}, r"strength 0\.1: give 0\.5 to 50 mm"),
        ({"boundary_noise": 4}, r"plants 4 defects.*only 3 train cases"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused(
    wish: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        assignments(wish, ["a", "b", "c"], 0)


def write_data_set(folder: Path, cases: int = 6) -> dict[str, Any]:
    """An nnU-Net folder with the ball in other places, and its config."""
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    (folder / "dataset.json").write_text(
        '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "b": 2, '
        '"c": 3}, "numTraining": 6, "file_ending": ".nii.gz"}'
    )
    for i in range(cases):
        labels = np.roll(lesion(), 2 * i, axis=2)
        for array, name in (
            (labels.astype(np.int16) * 100 + 50, f"imagesTr/case_{i}_0000"),
            (labels, f"labelsTr/case_{i}"),
        ):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing(SPACING[::-1])
            sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    return {
        "source": "nnunet",
        "path": str(folder),
        "pool": cases,
        "train_cases": cases,
        "held_out": 0,
        "seed": 0,
        "phantom": {},
    }


def test_the_imported_copy_is_spoilt_and_the_file_is_not(tmp_path: Path) -> None:
    config = write_data_set(tmp_path / "data")
    wish = {"over_segmentation": 1, "other_patient": 1, "boundary_noise": 1}
    cohort = load_cohort({**config, "spoil": wish})
    assert cohort.has_planted_defects
    changed = {}
    for case in cohort.cases:
        before = Path(str(case.label)).read_bytes()
        out = tmp_path / f"{case.id}.nii.gz"
        image = tmp_path / f"{case.id}_0000.nii.gz"
        import_case(case, cohort.label_map, [image], out)
        assert Path(str(case.label)).read_bytes() == before
        new, old = (sitk.ReadImage(str(path)) for path in (out, case.label))
        assert new.GetSpacing() == old.GetSpacing()
        same = np.array_equal(sitk.GetArrayFromImage(new), sitk.GetArrayFromImage(old))
        changed[case.spoilt.partition(":")[0]] = not same
        if case.spoilt == "other_patient":
            # The file that is read in its place is declared: a change is seen.
            assert case.other_label in case.existing_sources
            taken = sitk.GetArrayFromImage(sitk.ReadImage(str(case.other_label)))
            np.testing.assert_array_equal(sitk.GetArrayFromImage(new), taken)
    assert changed == {
        "": False,
        "over_segmentation": True,
        "other_patient": True,
        "boundary_noise": True,
    }


def test_the_cubes_config_needs_nothing_but_a_path() -> None:
    root = Path(__file__).parents[3]
    config = yaml.safe_load((root / "config/cubes.yaml").read_text())
    schema = root / "config/schemas/config.schema.json"
    with pytest.raises(UserError, match=r"cohort\.path"):
        validate(config, schema)
    config["cohort"]["path"] = "/data/cubes"
    wish = validate(config, schema)["cohort"]["spoil"]
    kinds = [what.kind for what in requested(wish)]
    assert {kind: kinds.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 4)


def test_only_a_control_is_no_planted_defect(tmp_path: Path) -> None:
    config = write_data_set(tmp_path / "data")
    cohort = load_cohort({**config, "spoil": {"boundary_noise": 2}})
    assert not cohort.has_planted_defects
    assert sum(case.spoilt != "" for case in cohort.cases) == 2


def test_the_synthetic_cohort_has_its_own_other_patient(tmp_path: Path) -> None:
    config = write_data_set(tmp_path / "data", 4) | {"source": "phantom"}
    with pytest.raises(UserError, match=r"cohort\.phantom\.defects\.other_patient"):
        load_cohort({**config, "spoil": {"other_patient": 1}})
    cohort = load_cohort({**config, "spoil": {"shifted_label": [5]}})
    assert [case.spoilt for case in cohort.cases].count("shifted_label:5") == 1
