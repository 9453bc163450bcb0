"""The resident predictor with nnU-Net's network, as the workflow calls it."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import hosts
from .hosts import is_alive, wait_until
from .predictors import SCRIPTS, Host

PLANS = {
    "dataset_name": "Dataset001_Cohort",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "experiment_planner_used": "ExperimentPlanner",
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {"0": {}},
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [16, 16],
            "median_image_size_in_voxels": [16, 16],
            "spacing": [1.0, 1.0],
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [False],
            "batch_dice": True,
            **{
                f"resampling_fn_{what}{kwargs}": value
                for what, is_seg in [
                    ("data", False),
                    ("seg", True),
                    ("probabilities", False),
                ]
                for kwargs, value in [
                    ("", "resample_data_or_seg_to_shape"),
                    (
                        "_kwargs",
                        {
                            "is_seg": is_seg,
                            "order": 1,
                            "order_z": 0,
                            "force_separate_z": None,
                        },
                    ),
                ]
            },
            "architecture": {
                "network_class_name": (
                    "dynamic_network_architectures.architectures.unet.PlainConvUNet"
                ),
                "arch_kwargs": {
                    "n_stages": 2,
                    "features_per_stage": [8, 16],
                    "conv_op": "torch.nn.modules.conv.Conv2d",
                    "kernel_sizes": [[3, 3]] * 2,
                    "strides": [[1, 1], [2, 2]],
                    "n_conv_per_stage": [1, 1],
                    "n_conv_per_stage_decoder": [1],
                    "conv_bias": True,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                    "dropout_op": None,
                    "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": True},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
    },
}
DATASET = {
    "channel_names": {"0": "T1w"},
    "labels": {"background": 0, "edema": 1, "core": 2},
    "file_ending": ".nii.gz",
}


class RealHost(Host):
    """Two untrained models, two preprocessed cases, and the workflow's own client."""

    def __init__(self, folder: Path) -> None:
        import numpy as np
        import SimpleITK
        import torch
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        from casesim.nnunet import checkpoints, preprocessing

        super().__init__(folder)
        # A copy, because an edit of the package in the meantime starts another server.
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SCRIPTS, folder / "scripts", ignore=ignored)
        self.program = folder / "scripts/inference/predict.py"
        torch.set_num_threads(1)
        for name in ("plans.json", "dataset.json"):
            content = PLANS if name == "plans.json" else DATASET
            (folder / name).write_text(json.dumps(content))
        manager = PlansManager(PLANS)
        for seed, model in enumerate(("one", "two")):
            torch.manual_seed(seed)
            network = checkpoints.build_network(
                manager, manager.get_configuration("2d"), DATASET, False, True
            )
            checkpoints.save_model(
                folder / model, network.state_dict(), PLANS, DATASET, "2d", (0, 1)
            )
        generator = np.random.default_rng(0)
        for case in ("a", "b"):
            image = generator.normal(size=(3, 20, 24)).astype(np.float32)
            files: list[Path] = []
            arrays: list[tuple[str, Any]] = [
                (f"{case}_0000.nii.gz", image),
                (f"{case}.nii.gz", (2 * (image > 1)).astype(np.uint8)),
            ]
            for name, array in arrays:
                files.append(folder / name)
                SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), files[-1])
            preprocessing.preprocess_case(
                [files[0]],
                files[1],
                folder / "plans.json",
                folder / "dataset.json",
                "2d",
                folder / case,
            )

    def command(self, model: str = "one", case: str = "a", *more: str) -> list[str]:
        return [
            *(sys.executable, "-S", "-E", str(self.program)),
            *("--model", model, "--case", case),
            *("--checkpoint", f"{model}/fold_all/checkpoint_final.pth"),
            *("--data", f"{case}.b2nd", "--label", f"{case}.nii.gz"),
            *("--prediction", f"{model}-{case}-out.nii.gz"),
            *("--score", f"{model}-{case}.json", "--threads", "1", "--gpu", self.gpu),
            *("--labels", "edema=1;core=2", "--regions", "WT=1,2", *more),
        ]

    def result(self, model: str, case: str) -> tuple[Any, dict[str, Any]]:
        """Label map and score, which are removed; the score without its seconds."""
        import SimpleITK

        prediction = self.folder / f"{model}-{case}-out.nii.gz"
        score = self.folder / f"{model}-{case}.json"
        labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(prediction))
        record = json.loads(score.read_text())
        del record["seconds"]
        prediction.unlink()
        score.unlink()
        return labels, record


@pytest.fixture(scope="module")
def real() -> Iterator[RealHost]:
    pytest.importorskip("nnunetv2")
    with hosts.short_folder() as folder:
        host = RealHost(folder)
        yield host
        pids = host.servers()
    # Its folder gone, the server has lost its socket.
    wait_until(lambda: not any(is_alive(pid) for pid in pids), 15)
    host.close()


class TestRealNetwork:
    """The same with nnU-Net's network, in one server for all tests of this class."""

    def test_same_result_with_and_without_the_resident_predictor(
        self, real: RealHost
    ) -> None:
        status, out, err = real.run("two", "b", "--no-resident")
        assert (status, err) == (0, "")
        expected, expected_score = real.result("two", "b")
        assert expected.any()
        assert expected_score["labels"]["core"]["n_ref"] > 0
        for model, case in [("one", "a"), ("two", "b"), ("one", "b")]:
            status, out, err = real.run(model, case)
            # On a busy machine it says that it waits for the predictor's start.
            said = [line for line in err.splitlines() if "so far" not in line]
            assert (status, said) == (0, [])
            assert f"{model} on {case} (cpu): load" in out
            labels, score = real.result(model, case)
            same = (model, case) == ("two", "b")
            assert (score == expected_score) is same
            assert bool((labels == expected).all()) is same
        assert len(real.servers()) == 1

    def test_options_reach_the_network(self, real: RealHost) -> None:
        real.run("one", "a")
        with_mirroring, _ = real.result("one", "a")
        real.run("one", "a", "--no-mirroring")
        without, _ = real.result("one", "a")
        assert (with_mirroring != without).any()

    def test_damaged_checkpoint_fails_its_job_alone(self, real: RealHost) -> None:
        checkpoint = real.folder / "two/fold_all/checkpoint_final.pth"
        good = checkpoint.read_bytes()
        before = real.servers()
        checkpoint.write_bytes(good[: len(good) // 2])
        status, _, err = real.run("two", "a")
        assert status == 1
        assert err.startswith("Error: ")
        assert str(checkpoint) in err
        assert "Traceback" not in err
        assert real.run("one", "a")[0] == 0
        checkpoint.write_bytes(good)
        assert real.run("two", "a")[0] == 0
        assert real.servers() == before

    def test_retrained_model_is_loaded_anew(self, real: RealHost) -> None:
        real.run("one", "a")
        first, _ = real.result("one", "a")
        shutil.copytree(real.folder / "one", real.folder / "kept")
        shutil.copyfile(
            real.folder / "two/fold_all/checkpoint_final.pth",
            real.folder / "one/fold_all/checkpoint_final.pth",
        )
        real.run("one", "a")
        second, _ = real.result("one", "a")
        real.run("two", "a")
        assert (second == real.result("two", "a")[0]).all()
        assert (second != first).any()
        shutil.rmtree(real.folder / "one")
        (real.folder / "kept").rename(real.folder / "one")

    @pytest.mark.parametrize("name", ["a.b2nd", "a.pkl", "a.nii.gz", "one/plans.json"])
    @pytest.mark.parametrize("how", ["missing", "damaged"])
    def test_file_that_is_missing_or_damaged_is_named(
        self, real: RealHost, name: str, how: str
    ) -> None:
        file = real.folder / name
        content = file.read_bytes()
        file.unlink()
        if how == "damaged":
            file.write_bytes(b"no such format")
        before = real.servers()
        status, _, err = real.run("one", "a")
        file.write_bytes(content)
        assert status == 1
        assert err.startswith("Error: ")
        assert name in err
        assert "Traceback" not in err
        assert not list(real.folder.glob(".tmp-*"))
        assert real.run("one", "a")[0] == 0
        assert real.servers() == before
