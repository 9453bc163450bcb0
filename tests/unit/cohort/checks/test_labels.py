"""Values of label maps, and where they lie."""

from pathlib import Path

import numpy as np
import pytest
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
