"""All rules at once, and cases against each other."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from unit.cohort.checks.broken import (
    SHAPE,
    Folder,
    affine_of,
    image_of,
    label_of,
    only,
    save,
)
from unit.cohort.folders import SHARED

from casesim.cohort.cases import Cohort
from casesim.cohort.checks import across_cases
from casesim.cohort.checks.across_cases import check_cohort
from casesim.cohort.loading import load_cohort


def test_good_cases_have_no_problem(folder: Folder) -> None:
    assert folder.check() == []


def test_duplicate_images_whatever_type_they_are_stored_as(folder: Folder) -> None:
    for channel in range(2):
        save(folder.image(2, channel), image_of(5, channel).astype(np.float32))
    problem = only(folder.check())
    assert "case_2 and case_5 have the same voxels in FLAIR, T1w" in problem.problem


def test_one_channel_of_another_case(folder: Folder) -> None:
    save(folder.image(2, 1), image_of(5, 1))
    assert "case_2 and case_5 have the same voxels in T1w" in (
        only(folder.check()).problem
    )


def test_one_channel_twice_in_a_case(folder: Folder) -> None:
    save(folder.image(2, 1), image_of(2, 0))
    problem = only(folder.check(), "warning")
    assert "The channels FLAIR, T1w are the same" in problem.problem


def test_identical_label_maps(folder: Folder) -> None:
    save(folder.label(0), label_of(1))
    problem = only(folder.check(), "warning")
    assert "case_0 and case_1 have the same label map" in problem.problem
    tiny = np.zeros(SHAPE, np.uint8)
    tiny[4, 4, 4] = 1
    save(folder.label(0), tiny)
    save(folder.label(1), tiny)
    assert folder.check() == []


def test_different_spacings(folder: Folder) -> None:
    for channel in range(2):
        save(folder.image(3, channel), image_of(3, channel), affine_of(2.0))
    save(folder.label(3), label_of(3), affine_of(2.0))
    problem = only(folder.check(), "warning")
    assert "1 x 1 x 1 mm in 5" in problem.problem
    assert "2 x 2 x 2 mm in 1 (case_3)" in problem.problem


def test_msd_channel_count_and_nan(tmp_path: Path) -> None:
    content = {
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "1": "edema", "2": "core"},
    }
    for case in range(4):
        voxels = np.stack([image_of(case, c) for c in range(2)], -1)
        save(tmp_path / f"imagesTr/case_{case}.nii.gz", voxels.astype(np.float32))
        save(tmp_path / f"labelsTr/case_{case}.nii.gz", label_of(case))
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    config = {
        **{"source": "msd", "path": str(tmp_path), "seed": 0},
        **{"pool": 3, "train_cases": 3, "held_out": 1},
    }
    assert check_cohort(load_cohort(config), 1) == []
    save(tmp_path / "imagesTr/case_0.nii.gz", image_of(0))
    voxels = np.stack([image_of(1, c) for c in range(2)], -1).astype(np.float32)
    voxels[4, 4, 4, 1] = np.nan
    save(tmp_path / "imagesTr/case_1.nii.gz", voxels)
    first, second = check_cohort(load_cohort(config), 1)
    assert first.problem.startswith("Wrong channel count")
    assert "so 1 channels, but dataset.json names 2" in first.problem
    assert "(channel T1w) has 1 NaN" in second.problem


@pytest.mark.parametrize("channels", [1, 4])
def test_memory_is_not_more_than_told(tmp_path: Path, channels: int) -> None:
    """As far as numpy tells, which does not see all that SimpleITK takes."""
    content = {
        "modality": {str(i): f"T{i}" for i in range(channels)},
        "labels": {"0": "background", "1": "edema"},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    draw = np.random.default_rng(0)
    label = np.zeros((64, 64, 24), np.uint8)
    label[20:40, 20:40, 8:16] = 1
    for case in range(2):
        voxels = draw.integers(0, 1000, (*label.shape, channels)).astype(np.int16)
        save(tmp_path / f"imagesTr/case_{case}.nii.gz", voxels)
        save(tmp_path / f"labelsTr/case_{case}.nii.gz", label)
    config = {
        **{"source": "msd", "path": str(tmp_path), "seed": 0},
        **{"pool": 1, "train_cases": 1, "held_out": 1},
    }
    cohort = load_cohort(config)
    told = across_cases._memory(cohort.cases[0])
    # One at a time where there is room for less, and imports.
    assert check_cohort(cohort, 2, memory=1.0) == check_cohort(cohort, 2)
    tracemalloc.start()
    check_cohort(cohort, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.4 * told <= peak <= told


def test_phantoms_have_nothing_to_be_read() -> None:
    phantom = {"shape": [16, 24, 24], "spacing": [6.0, 6.0, 5.0], "scanners": 2}
    config = {
        **{"source": "phantom", "path": None, "seed": 0, "phantom": phantom},
        **{"pool": 4, "train_cases": 3, "held_out": 2},
    }
    assert check_cohort(load_cohort(config), 4) == []


@pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason=f"no real patients in {SHARED / 'data'}"
)
@pytest.mark.parametrize(
    ("source", "name", "pool"),
    [("msd", "Task01_BrainTumour", 2), ("brats", "BraTS2021_native", 1)],
)
def test_real_patients_are_fine(source: str, name: str, pool: int) -> None:
    labels = {"edema": [2], "non-enhancing_tumor": [1], "enhancing_tumour": [4]}
    cohort: Cohort = load_cohort(
        {
            **{"source": source, "path": str(SHARED / "data" / name), "seed": 0},
            **{"pool": pool, "train_cases": 1, "held_out": 0},
            "brats": {"labels": labels},
        }
    )
    assert check_cohort(cohort, 1) == []


@pytest.mark.parametrize(
    ("factor", "severity"), [(0.1, "warning"), (10.0, "warning"), (100.0, "error")]
)
def test_a_case_in_another_unit(folder: Folder, factor: float, severity: str) -> None:
    """0.1 and 10 as centimetres would be; a warning, since slices may be thick."""
    affine = affine_of(factor)
    for channel in range(2):
        save(folder.image(3, channel), image_of(3, channel), affine)
    save(folder.label(3), label_of(3), affine)
    problems = [p for p in folder.check() if "of the other cases" in p.problem]
    problem = only(problems, severity)
    assert problem.case == "case_3"
    assert "those of the other cases 1 x 1 x 1 mm" in problem.problem


def test_all_cases_in_metres(folder: Folder) -> None:
    for case in range(6):
        for channel in range(2):
            save(folder.image(case, channel), image_of(case, channel), affine_of(0.001))
        save(folder.label(case), label_of(case), affine_of(0.001))
    problems = folder.check()
    assert len(problems) == 6
    assert "0.009 x 0.008 x 0.007 mm large: its voxels have 0.001 x" in (
        problems[0].problem
    )
