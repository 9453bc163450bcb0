"""Values of label maps, and where they lie."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from unit.cohort.checks.broken import SHAPE, Folder, image_of, label_of, only, save

from casesim.cohort.checks.across_cases import check_cohort
from casesim.cohort.loading import load_cohort


def test_label_values_outside_the_declared(folder: Folder) -> None:
    label = label_of(0).astype(np.int16)
    label[2, 2, 2:4] = 7
    label[2, 3, 2] = -1
    save(folder.label(0), label)
    problem = only(folder.check())
    assert "outside the declared ones (0, 1, 2): -1 (1 voxels), 7 (2 voxels)" in (
        problem.problem
    )
    assert "dataset.json" in problem.how_to_fix


def test_label_values_that_are_no_integers(folder: Folder) -> None:
    label = label_of(0).astype(np.float32)
    label[2, 2, 2:4] = 0.5
    save(folder.label(0), label)
    assert "no integers: 0.5" in only(folder.check()).problem


def test_label_map_stored_as_floats_is_fine(folder: Folder) -> None:
    save(folder.label(0), label_of(0).astype(np.float64))
    assert folder.check() == []


def test_empty_label_map_in_every_role(folder: Folder) -> None:
    for case in range(6):
        save(folder.label(case), np.zeros(SHAPE, np.uint8))
    problems = folder.check()
    assert [p.case for p in problems] == [f"case_{case}" for case in range(6)]
    assert {p.severity for p in problems} == {"error"}
    assert all("is an empty label map" in p.problem for p in problems)


def test_label_outside_the_brain(folder: Folder) -> None:
    label = label_of(0)
    label[0, 0, :5] = 1
    save(folder.label(0), label)
    problem = only(folder.check(), "warning")
    assert "labels 5 voxels outside the brain" in problem.problem


def test_ignored_voxels_are_no_label(folder: Folder) -> None:
    folder.describe(labels={"background": 0, "edema": 1, "core": 2, "ignore": 3})
    label = label_of(0)
    label[:, :, -1] = 3  # also outside the brain
    save(folder.label(0), label)
    assert folder.check() == []
    save(folder.label(1), np.where(label == 3, label, 0))
    assert "is an empty label map" in only(folder.check()).problem


def test_regions_may_overlap(folder: Folder) -> None:
    folder.describe(
        labels={"background": 0, "whole": [1, 2], "core": 2}, regions_class_order=[1, 2]
    )
    assert folder.check() == []


@pytest.mark.parametrize(
    ("found", "hint"),
    [
        ([0, 1, 2, 3], "enhancing_tumour: [3]}"),
        ([0, 1, 2, 3, 4], "enhancing_tumour: [3], resection_cavity: [4]}"),
        ([0, 1, 2, 9], "give the label a name in cohort.brats.labels"),
    ],
)
def test_brats_labels_of_other_years(
    tmp_path: Path, found: list[int], hint: str
) -> None:
    for case in range(3):
        name = f"BraTS-GLI-0000{case}-000"
        for i, end in enumerate(("t2f", "t1n", "t1c", "t2w")):
            save(tmp_path / name / f"{name}-{end}.nii.gz", image_of(case, i))
        label = np.array(found, np.uint8)[image_of(case, 9) % len(found)]
        label[:2] = 0
        save(tmp_path / name / f"{name}-seg.nii.gz", label)
    labels = {"edema": [2], "non-enhancing_tumor": [1], "enhancing_tumour": [4]}
    config = {
        **{"source": "brats", "path": str(tmp_path), "seed": 0},
        **{"pool": 2, "train_cases": 2, "held_out": 1, "brats": {"labels": labels}},
    }
    problems = check_cohort(load_cohort(config), 1)
    assert len(problems) == 3
    assert all(p.how_to_fix.rstrip(".").endswith(hint) for p in problems)


def rescale(path: Path, slope: float, intercept: float) -> None:
    """Write a scaling into the header of a packed NIfTI file, voxels as they are."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[112:120] = struct.pack("<2f", slope, intercept)
    path.write_bytes(gzip.compress(content))


@pytest.mark.parametrize(
    ("slope", "intercept", "found"),
    [
        # nibabel leaves values alone where the slope is 0; nnU-Net's reader does not.
        (0, 5, "5 (453 voxels), 6 (47 voxels), 7 (4 voxels)"),
        (float("nan"), 2, "3 (47 voxels), 4 (4 voxels)"),
        (3, 0, "3 (47 voxels), 6 (4 voxels)"),
    ],
)
def test_label_values_are_those_that_nnunet_reads(
    folder: Folder, slope: float, intercept: float, found: str
) -> None:
    rescale(folder.label(0), slope, intercept)
    problem = only([p for p in folder.check() if p.severity == "error"])
    assert problem.problem.endswith(f"outside the declared ones (0, 1, 2): {found}.")
    read = sitk.GetArrayFromImage(sitk.ReadImage(str(folder.label(0))))
    for value in np.unique(read):
        assert int(value) in (0, 1, 2) or f"{value:g} (" in problem.problem


@pytest.mark.parametrize("slope", [1 / 85, 0.5])
def test_labels_stored_with_a_scaling(folder: Folder, slope: float) -> None:
    """85 steps of 0.0117647 are 1 in 32 bits, as which nnU-Net reads them."""
    save(folder.label(0), label_of(0) * round(1 / slope))
    rescale(folder.label(0), slope, 0)
    assert folder.check() == []


def test_fractions_are_shown_with_all_their_digits(folder: Folder) -> None:
    label = label_of(0).astype(np.float32)
    label[2, 2, 2] = 1.0000001
    save(folder.label(0), label)
    assert "1 label values that are no integers: 1.0000001." in (
        only(folder.check()).problem
    )


def test_zero_is_tissue_in_ct(folder: Folder) -> None:
    label = label_of(0)
    label[0, 0, :5] = 1
    save(folder.label(0), label)
    assert "outside the brain" in only(folder.check(), "warning").problem
    folder.describe(channel_names={"0": "ct", "1": "T1w"})
    assert folder.check() == []


def test_a_label_that_no_pool_case_has(folder: Folder) -> None:
    folder.describe(labels={"background": 0, "edema": 1, "core": 2, "rim": 3})
    problem = only(folder.check(), "warning")
    assert problem.case == "(cohort)"
    assert "No pool case has the label rim (3): no model learns it" in problem.problem
    # In a held-out case alone it is not learnt either.
    held_out = load_cohort(folder.config).held_out[0]
    label = label_of(0)
    label[2, 2, 2] = 3
    save(folder.label(int(held_out[-1])), label)
    assert "the label rim (3)" in only(folder.check(), "warning").problem
    pool = load_cohort(folder.config).pool[0]
    save(folder.label(int(pool[-1])), label)
    assert not any("rim" in p.problem for p in folder.check())
