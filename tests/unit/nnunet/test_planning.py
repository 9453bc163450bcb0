import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from unit.conftest import CHANNELS, LABELS, POOL, TinyCohort

from casesim.errors import UserError
from casesim.nnunet import planning
from casesim.nnunet.files import read_json, write_json


def _files(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


def test_plan_writes_what_the_rule_declares(tiny_cohort: TinyCohort) -> None:
    top = [path.name for path in tiny_cohort.preprocessed.iterdir() if path.is_file()]
    assert sorted(top) == [
        "dataset.json",
        "dataset_fingerprint.json",
        "nnUNetPlans.json",
    ]
    assert [p.name for p in tiny_cohort.raw.glob("*.json")] == ["dataset.json"]
    raw = read_json(tiny_cohort.raw / "dataset.json")
    assert raw == read_json(tiny_cohort.dataset)
    assert raw["labels"] == LABELS
    assert list(raw["channel_names"].values()) == CHANNELS
    assert raw["numTraining"] == len(POOL)


def test_listed_files_are_right_for_nnunet(tiny_cohort: TinyCohort) -> None:
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    listed = get_filenames_of_train_images_and_targets(str(tiny_cohort.raw))
    assert sorted(listed) == POOL
    for case, files in listed.items():
        assert [Path(image) for image in files["images"]] == tiny_cohort.images(case)
        assert Path(files["label"]) == tiny_cohort.label(case)


def test_held_out_cases_are_not_in_the_fingerprint(tiny_cohort: TinyCohort) -> None:
    path = tiny_cohort.preprocessed / "dataset_fingerprint.json"
    fingerprint = read_json(path)
    assert len(fingerprint["spacings"]) == len(POOL)
    for channel in fingerprint["foreground_intensity_properties_per_channel"].values():
        assert channel["max"] < 1000  # the held-out case is at about 20,000


def test_nothing_of_an_earlier_plan_stays(tiny_cohort: TinyCohort) -> None:
    assert set(read_json(tiny_cohort.plans)["configurations"]) == {
        "2d",
        "3d_fullres",
    }


Replan = Callable[..., dict[str, Any]]


@pytest.fixture
def replan(
    tiny_cohort: TinyCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Replan:
    """Plan again with the tiny cohort's fingerprint, changed or not."""

    def plan(change: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
        fingerprint = read_json(tiny_cohort.preprocessed / "dataset_fingerprint.json")

        def run(self: DatasetFingerprintExtractor, overwrite_existing: bool) -> None:
            folder = Path(os.environ["nnUNet_preprocessed"], self.dataset_name)
            path = folder / "dataset_fingerprint.json"
            path.write_text(json.dumps(fingerprint | (change or {})))

        monkeypatch.setattr(DatasetFingerprintExtractor, "run", run)
        planning.plan(
            tmp_path / "raw",
            tmp_path / "preprocessed",
            POOL,
            CHANNELS,
            LABELS,
            {"target_spacing": None} | config,
            processes=1,
        )
        return read_json(tmp_path / "preprocessed" / "nnUNetPlans.json")

    return plan


def test_target_spacing_and_memory_reach_the_planner(
    replan: Replan, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Right for training on small machines, but the planner fails on it.
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    large = {"shapes_after_crop": [[64, 64, 64]] * len(POOL)}
    plans = replan(large, configuration="3d_fullres", target_spacing=[3, 3, 3])
    fullres = plans["configurations"]["3d_fullres"]
    assert fullres["spacing"] == [3.0, 3.0, 3.0]
    assert os.environ["nnUNet_n_proc_DA"] == "0"
    small = replan(
        large,
        configuration="3d_fullres",
        target_spacing=[3, 3, 3],
        gpu_memory_target_gb=0.1,
    )["configurations"]["3d_fullres"]
    assert np.prod(small["patch_size"]) < np.prod(fullres["patch_size"])


def test_3d_lowres_that_the_planner_does_not_make(
    replan: Replan, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no configuration 3d_lowres") as error:
        replan(configuration="3d_lowres")
    assert "2d, 3d_fullres" in str(error.value)
    assert _files(tmp_path) == []


def test_3d_lowres_that_the_planner_makes(replan: Replan) -> None:
    plans = replan(
        {"shapes_after_crop": [[96, 128, 128]] * len(POOL)},
        configuration="3d_lowres",
        gpu_memory_target_gb=0.5,
    )
    assert "3d_lowres" in plans["configurations"]


def test_a_cascade_that_the_planner_does_not_make(
    replan: Replan, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no configuration 3d_cascade_full") as error:
        replan(configuration="3d_cascade_fullres")
    assert "holds less than about a quarter of an image" in str(error.value)
    assert "Set nnunet.configuration to 3d_fullres, whose" in str(error.value)
    assert _files(tmp_path) == []


def test_a_cascade_that_the_planner_makes(replan: Replan) -> None:
    plans = replan(
        {"shapes_after_crop": [[96, 128, 128]] * len(POOL)},
        configuration="3d_cascade_fullres",
        gpu_memory_target_gb=0.5,
        batch_size=3,
    )["configurations"]
    assert plans["3d_cascade_fullres"]["previous_stage"] == "3d_lowres"
    assert plans["3d_cascade_fullres"]["batch_size"] == 3
    assert plans["3d_lowres"]["batch_size"] == 3
    assert plans["3d_fullres"]["batch_size"] == 2


def test_plans_without_the_configuration(tiny_cohort: TinyCohort) -> None:
    with pytest.raises(UserError, match="no configuration 3d_lowres"):
        planning.load_plans(tiny_cohort.plans, "3d_lowres")


@pytest.mark.parametrize(
    ("name", "gb"), [("ResEncM", 8), ("ResEncL", 24), ("ResEncXL", 40)]
)
def test_presets_plan_as_nnunet_s_command_does(
    name: str, gb: float, replan: Replan, tmp_path: Path, tiny_cohort: TinyCohort
) -> None:
    large = {
        "shapes_after_crop": [[90, 120, 110]] * len(POOL),
        "spacings": [[1.5, 1.0, 1.0]] * len(POOL),
    }
    ours = replan(large, configuration="3d_fullres", planner=name)
    theirs = tmp_path / "theirs"
    for kind in ("raw", "preprocessed"):
        (theirs / kind / planning.DATASET).mkdir(parents=True)
    dataset = read_json(tmp_path / "raw/dataset.json")
    for case in dataset["dataset"].values():
        case["images"] = [str(tiny_cohort.raw / image) for image in case["images"]]
        case["label"] = str(tiny_cohort.raw / case["label"])
    write_json(theirs / "raw" / planning.DATASET / "dataset.json", dataset)
    fingerprint = read_json(tiny_cohort.preprocessed / "dataset_fingerprint.json")
    preprocessed = theirs / "preprocessed" / planning.DATASET
    write_json(preprocessed / "dataset_fingerprint.json", fingerprint | large)
    command = Path(sys.executable).with_name("nnUNetv2_plan_experiment")
    subprocess.run(
        [command, "-d", "1", "-pl", f"nnUNetPlanner{name}"],
        env={
            **os.environ,
            "nnUNet_raw": str(theirs / "raw"),
            "nnUNet_preprocessed": str(theirs / "preprocessed"),
            "nnUNet_results": str(theirs),
        },
        check=True,
        capture_output=True,
    )
    size = name.removeprefix("ResEnc")
    expected = read_json(preprocessed / f"nnUNetResEncUNet{size}Plans.json")
    assert expected["experiment_planner_used"] == f"nnUNetPlanner{name}"
    expected["plans_name"] = "nnUNetPlans"
    assert ours == expected
    # The memory that nnU-Net documents is the default.
    assert planning.PLANNERS[name][1] == gb


def test_regions_reach_nnunet_in_their_order() -> None:
    labels: dict[str, int | list[int]] = {
        **{"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3},
        "ignore": 4,
    }
    content = planning.dataset_json(POOL, CHANNELS, labels, (1, 2, 3))
    assert list(content["labels"].items()) == list(labels.items())
    assert content["regions_class_order"] == [1, 2, 3]
    assert "regions_class_order" not in planning.dataset_json(POOL, CHANNELS, LABELS)
    manager = LabelManager(content["labels"], content["regions_class_order"])
    assert manager.foreground_regions == [(1, 2, 3), (2, 3), 3]
    assert manager.ignore_label == 4


def test_plans_that_cannot_work_are_not_written(replan: Replan, tmp_path: Path) -> None:
    """nnU-Net's own planner, on single slices whose spacing is larger in plane."""
    slices = {
        "spacings": [[1.0, 3.0, 3.0]] * len(POOL),
        "shapes_after_crop": [[1, 44, 44]] * len(POOL),
    }
    with pytest.raises(UserError, match=r"no network can be .* \[1, 1, 1\]"):
        replan(slices, configuration="2d", gpu_memory_target_gb=8)
    with pytest.raises(UserError, match=r"nothing is left of the cases along z"):
        replan(slices, configuration="2d", target_spacing=[3, 3, 3])
    assert _files(tmp_path) == []
    # What the message says to set helps.
    plans = replan(
        slices, configuration="2d", gpu_memory_target_gb=8, target_spacing=[1, 1, 1]
    )
    assert min(plans["configurations"]["2d"]["patch_size"]) >= 100


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they are spawned")
def test_workers_do_not_import_nnunet_anew() -> None:
    with planning._forked_workers(fingerprint_extractor):
        context = fingerprint_extractor.multiprocessing.get_context("spawn")
        assert context.get_start_method() == "fork"
    assert fingerprint_extractor.multiprocessing is multiprocessing
