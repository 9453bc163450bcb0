import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import (
    DefaultPreprocessor,
)
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from unit.conftest import CHANNELS, HELD_OUT, LABELS, POOL, SPACING, TinyCohort

from casesim.errors import UserError
from casesim.nnunet import nnunet


def _files(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


# Planning


def test_plan_writes_what_the_rule_declares(tiny_cohort: TinyCohort) -> None:
    top = [path.name for path in tiny_cohort.preprocessed.iterdir() if path.is_file()]
    assert sorted(top) == [
        "dataset.json",
        "dataset_fingerprint.json",
        "nnUNetPlans.json",
    ]
    assert [p.name for p in tiny_cohort.raw.glob("*.json")] == ["dataset.json"]
    raw = nnunet.read_json(tiny_cohort.raw / "dataset.json")
    assert raw == nnunet.read_json(tiny_cohort.dataset)
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
    fingerprint = nnunet.read_json(path)
    assert len(fingerprint["spacings"]) == len(POOL)
    for channel in fingerprint["foreground_intensity_properties_per_channel"].values():
        assert channel["max"] < 1000  # the held-out case is at about 20,000


def test_nothing_of_an_earlier_plan_stays(tiny_cohort: TinyCohort) -> None:
    assert set(nnunet.read_json(tiny_cohort.plans)["configurations"]) == {
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
        fingerprint = nnunet.read_json(
            tiny_cohort.preprocessed / "dataset_fingerprint.json"
        )

        def run(self: DatasetFingerprintExtractor, overwrite_existing: bool) -> None:
            folder = Path(os.environ["nnUNet_preprocessed"], self.dataset_name)
            path = folder / "dataset_fingerprint.json"
            path.write_text(json.dumps(fingerprint | (change or {})))

        monkeypatch.setattr(DatasetFingerprintExtractor, "run", run)
        nnunet.plan(
            tmp_path / "raw",
            tmp_path / "preprocessed",
            POOL,
            CHANNELS,
            LABELS,
            {"target_spacing": None, "gpu_memory_target_gb": 8} | config,
            processes=1,
        )
        return nnunet.read_json(tmp_path / "preprocessed" / "nnUNetPlans.json")

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


def test_cascade_is_refused(replan: Replan) -> None:
    with pytest.raises(UserError, match="cascade"):
        replan(configuration="3d_cascade_fullres")


# Preprocessing


def test_preprocessing_is_nnunets(tiny_cohort: TinyCohort, tmp_path: Path) -> None:
    plans, configuration = nnunet.load_plans(tiny_cohort.plans, "2d")
    case = POOL[0]
    DefaultPreprocessor(verbose=False).run_case_save(
        str(tmp_path / case),
        [str(path) for path in tiny_cohort.images(case)],
        str(tiny_cohort.label(case)),
        plans,
        configuration,
        nnunet.read_json(tiny_cohort.dataset),
    )
    for suffix in (".b2nd", "_seg.b2nd", ".pkl"):
        ours = Path(f"{tiny_cohort.stem(case)}{suffix}").read_bytes()
        assert ours == (tmp_path / f"{case}{suffix}").read_bytes()


def test_arrays_are_preprocessed_as_files_are(
    tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    image, label, spacing = nnunet.read_case(
        tiny_cohort.images(POOL[1]), tiny_cohort.label(POOL[1])
    )
    assert image.shape == (4, 12, 32, 32)
    assert label.shape == (12, 32, 32)
    assert tuple(spacing) == SPACING
    nnunet.preprocess_arrays(
        image,
        label,
        spacing,
        tiny_cohort.plans,
        tiny_cohort.dataset,
        "2d",
        tmp_path / "copy_0",
    )
    expected = nnunet.load_preprocessed(tiny_cohort.stem(POOL[1]), with_seg=True)
    data, seg, properties = nnunet.load_preprocessed(tmp_path / "copy_0", with_seg=True)
    np.testing.assert_array_equal(data, expected[0])
    np.testing.assert_array_equal(seg, expected[1])
    assert data.dtype == np.float32
    for label_value, locations in expected[2]["class_locations"].items():
        np.testing.assert_array_equal(
            properties["class_locations"][label_value], locations
        )


def test_the_segmentation_is_read_when_asked_for(tiny_cohort: TinyCohort) -> None:
    data, seg, properties = nnunet.load_preprocessed(tiny_cohort.stem(POOL[0]))
    assert seg is None
    assert properties["shape_before_cropping"] == (12, 32, 32)
    lazy_data, lazy_seg = nnunet.open_preprocessed(tiny_cohort.stem(POOL[0]))
    np.testing.assert_array_equal(lazy_data[:], data)
    assert lazy_seg.shape == (1, *data.shape[1:])


def test_failed_preprocessing_leaves_no_file(
    tiny_cohort: TinyCohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_half(
        data: np.ndarray, seg: np.ndarray, _: Any, stem: str, **__: Any
    ) -> None:
        Path(f"{stem}.b2nd").write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(nnUNetDatasetBlosc2, "save_case", save_half)
    with pytest.raises(OSError, match="disk full"):
        nnunet.preprocess_arrays(
            np.ones((4, 4, 8, 8), np.float32),
            np.zeros((4, 8, 8), np.uint8),
            SPACING,
            tiny_cohort.plans,
            tiny_cohort.dataset,
            "2d",
            tmp_path / "copy_0",
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".b2nd", "_seg.b2nd", ".pkl"])
def test_damaged_and_missing_cases_are_named(
    tiny_cohort: TinyCohort, tmp_path: Path, suffix: str
) -> None:
    for end in (".b2nd", "_seg.b2nd", ".pkl"):
        shutil.copy(f"{tiny_cohort.stem(POOL[0])}{end}", tmp_path / f"a{end}")
    path = tmp_path / f"a{suffix}"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"{path} is damaged"):
        nnunet.load_preprocessed(tmp_path / "a", with_seg=True)
    path.unlink()
    with pytest.raises(UserError, match=f"{path} is missing"):
        nnunet.load_preprocessed(tmp_path / "a", with_seg=True)


def test_plans_without_the_configuration(tiny_cohort: TinyCohort) -> None:
    with pytest.raises(UserError, match="no configuration 3d_lowres"):
        nnunet.load_plans(tiny_cohort.plans, "3d_lowres")


# Models


@pytest.fixture(scope="module")
def network(tiny_cohort: TinyCohort) -> torch.nn.Module:
    torch.manual_seed(0)
    return nnunet.build_network(
        *nnunet.load_plans(tiny_cohort.plans, "2d"),
        nnunet.read_json(tiny_cohort.dataset),
        deep_supervision=True,
        initialise=True,
    )


def _save(
    network: torch.nn.Module, cohort: TinyCohort, folder: Path, **options: Any
) -> Path:
    return nnunet.save_model(
        folder,
        network.state_dict(),
        nnunet.read_json(cohort.plans),
        nnunet.read_json(cohort.dataset),
        "2d",
        (0, 1),
        **options,
    )


def test_nnunets_predictor_predicts_the_same(
    tiny_cohort: TinyCohort, network: torch.nn.Module, tmp_path: Path
) -> None:
    checkpoint = _save(network, tiny_cohort, tmp_path)
    assert _files(tmp_path) == [
        "dataset.json",
        "fold_all/checkpoint_final.pth",
        "plans.json",
    ]
    model = nnunet.load_model(checkpoint, "cpu")
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(
        str(tmp_path), use_folds=("all",), checkpoint_name=checkpoint.name
    )
    assert predictor.allowed_mirroring_axes == model.allowed_mirroring_axes == (0, 1)
    assert predictor.label_manager.all_labels == model.label_manager.all_labels
    data, _, _ = nnunet.load_preprocessed(tiny_cohort.stem(HELD_OUT[0]))
    batch = torch.from_numpy(data[:, 4:6, :24, :24]).transpose(0, 1)
    network.get_submodule("decoder").deep_supervision = False  # type: ignore[assignment]
    with torch.no_grad():
        trained = network.eval()(batch)
        assert torch.equal(model.network(batch), trained)
        assert torch.equal(predictor.network.eval()(batch), trained)
    network.get_submodule("decoder").deep_supervision = True  # type: ignore[assignment]
    assert not model.network.training
    assert not any(weight.requires_grad for weight in model.network.parameters())


def test_float16_is_half_as_large_and_loads_as_float32(
    tiny_cohort: TinyCohort, network: torch.nn.Module, tmp_path: Path
) -> None:
    full = _save(network, tiny_cohort, tmp_path / "full")
    half = _save(network, tiny_cohort, tmp_path / "half", storage="float16")
    # No optimizer state, and shared weights are stored once, in both formats.
    number = sum(weight.numel() for weight in network.parameters())
    assert full.stat().st_size < 4 * number + 200_000
    assert half.stat().st_size < 2 * number + 200_000
    weights = nnunet.load_model(half, "cpu").network.state_dict()
    for name, weight in network.state_dict().items():
        assert weights[name].dtype == torch.float32
        torch.testing.assert_close(weights[name], weight, rtol=1e-3, atol=1e-6)


def test_the_same_model_gives_the_same_file(
    tiny_cohort: TinyCohort, network: torch.nn.Module, tmp_path: Path
) -> None:
    first = _save(network, tiny_cohort, tmp_path / "a").read_bytes()
    assert first == _save(network, tiny_cohort, tmp_path / "b").read_bytes()


def test_unknown_storage(
    tiny_cohort: TinyCohort, network: torch.nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="float8"):
        _save(network, tiny_cohort, tmp_path, storage="float8")


def test_missing_and_damaged_models_are_named(
    tiny_cohort: TinyCohort, network: torch.nn.Module, tmp_path: Path
) -> None:
    checkpoint = _save(network, tiny_cohort, tmp_path)
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"{checkpoint} is damaged"):
        nnunet.load_model(checkpoint, "cpu")
    checkpoint.unlink()
    with pytest.raises(UserError, match=f"{checkpoint} is missing"):
        nnunet.load_model(checkpoint, "cpu")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match=r"dataset\.json"):
        nnunet.load_model(checkpoint, "cpu")


def test_checkpoints_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "ran").touch, ())

    path = tmp_path / "evil.pth"
    torch.save({"network_weights": Evil()}, path)
    with pytest.raises(UserError, match="damaged"):
        nnunet.read_checkpoint(path)
    assert not (tmp_path / "ran").exists()
    # Without the protection it would have run.
    pickle.loads(pickle.dumps(Evil()))
    assert (tmp_path / "ran").exists()


def test_weights_of_other_plans(
    tiny_cohort: TinyCohort, network: torch.nn.Module, tmp_path: Path
) -> None:
    checkpoint = _save(network, tiny_cohort, tmp_path)
    dataset = nnunet.read_json(tmp_path / "dataset.json")
    del dataset["labels"]["rim"]
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(UserError, match="do not fit"):
        nnunet.load_model(checkpoint, "cpu")
