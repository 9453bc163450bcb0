"""Our inference against nnU-Net's own predictor and export."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import (
    DefaultPreprocessor,
)
from nnunetv2.utilities.plans_handling.plans_handler import (
    ConfigurationManager,
    PlansManager,
)

from casesim.errors import UserError
from casesim.inference import predictor
from casesim.nnunet import nnunet

LABELS = {"background": 0, "edema": 1, "core": 2, "enhancing": 3}
REGIONS = {"WT": (1, 2, 3), "TC": (2, 3)}
SHARED = Path(os.environ.get("CASESIM_SHARED", Path(__file__).parents[4] / "shared"))
PATIENTS = SHARED / "data" / "Task01_BrainTumour"


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def predict_labels(
    model: nnunet.Model, data: np.ndarray, properties: dict[str, Any], **options: Any
) -> np.ndarray:
    """Label map of a preprocessed case, as `run_cell` makes it."""
    logits = predictor.predict_logits(model, data, **options)
    return predictor.to_label_map(model, logits, properties)


def make_model(
    patch: tuple[int, ...],
    spacing: tuple[float, ...] | None = None,
    transpose: tuple[int, ...] = (0, 1, 2),
    channels: int = 2,
    mirror: tuple[int, ...] | None = None,
    seed: int = 0,
) -> nnunet.Model:
    """A tiny untrained network with plans as nnU-Net writes them."""
    dim = len(patch)
    name = "2d" if dim == 2 else "3d_fullres"
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": f"nnUNetPlans_{name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": list(patch),
        "spacing": list(spacing or (1.0,) * dim),
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [True] * channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling | {"order": 3},
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": resampling | {"is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling,
        "batch_dice": True,
        "architecture": {
            "network_class_name": (
                "dynamic_network_architectures.architectures.unet.PlainConvUNet"
            ),
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [8, 16, 32],
                "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
                "kernel_sizes": [[3] * dim] * 3,
                "strides": [[1] * dim, [2] * dim, [2] * dim],
                "n_conv_per_stage": [2, 2, 2],
                "n_conv_per_stage_decoder": [2, 2],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    backward = [int(i) for i in np.argsort(transpose)]
    plans = {
        "dataset_name": nnunet.DATASET,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(transpose),
        "transpose_backward": backward,
        "configurations": {name: configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(i): {} for i in range(channels)
        },
    }
    dataset = {
        "channel_names": {str(i): f"c{i}" for i in range(channels)},
        "labels": LABELS,
        "file_ending": ".nii.gz",
    }
    manager = PlansManager(plans)
    torch.manual_seed(seed)
    network = nnunet.build_network(
        manager, manager.get_configuration(name), dataset, False, True
    )
    with torch.no_grad():
        for module in network.modules():
            # Untrained affine parameters are 1 and 0, which would hide mistakes.
            if isinstance(module, torch.nn.modules.instancenorm._InstanceNorm):
                module.weight.uniform_(0.3, 2)
                module.bias.uniform_(-0.5, 0.5)
    return nnunet.Model(
        network=network.requires_grad_(False).eval(),
        plans_manager=manager,
        configuration_manager=manager.get_configuration(name),
        dataset_json=dataset,
        label_manager=manager.get_label_manager(dataset),
        allowed_mirroring_axes=tuple(range(dim)) if mirror is None else mirror,
        configuration=name,
    )


def make_image(
    shape: tuple[int, ...], channels: int = 2, margin: int = 2, seed: int = 1
) -> np.ndarray:
    """A smooth image (channel, z, y, x) in a frame of zeros, which nnU-Net crops."""
    generator = np.random.default_rng(seed)
    coarse = torch.as_tensor(generator.normal(size=(1, channels, 5, 6, 7)))
    image = torch.nn.functional.interpolate(coarse, shape, mode="trilinear")[0].numpy()
    image = image + 0.2 * generator.normal(size=image.shape) + 4
    inside = np.zeros(shape, bool)
    inside[
        tuple(slice(min(margin, n // 4), n - min(margin, n // 4)) for n in shape)
    ] = 1
    return (image * inside).astype(np.float32)


def preprocess(
    model: nnunet.Model, image: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[np.ndarray, dict[str, Any]]:
    properties = {
        "spacing": list(spacing),
        "sitk_stuff": {
            "spacing": spacing[::-1],
            "origin": (1.0, -2.0, 3.5),
            "direction": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
        },
    }
    data, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        image,
        None,
        properties,
        model.plans_manager,
        model.configuration_manager,
        model.dataset_json,
    )
    return data.astype(np.float32), properties


def reference_predictor(
    model: nnunet.Model, mirroring: bool = True, tile_step: float = 0.5
) -> nnUNetPredictor:
    theirs = nnUNetPredictor(
        tile_step_size=tile_step,
        use_mirroring=mirroring,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    # Their network is a copy: ours may be put into another memory format.
    theirs.manual_initialization(
        copy.deepcopy(model.network),
        model.plans_manager,
        model.configuration_manager,
        [model.network.state_dict()],
        model.dataset_json,
        "nnUNetTrainer",
        model.allowed_mirroring_axes,
    )
    return theirs


def their_logits(
    model: nnunet.Model,
    data: np.ndarray,
    mirroring: bool = True,
    tile_step: float = 0.5,
    sums: torch.dtype = torch.float32,
) -> torch.Tensor:
    """nnU-Net's logits, summed in single precision, or in half as nnU-Net does."""
    theirs = reference_predictor(model, mirroring, tile_step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict_from_raw_data.torch, "half", sums)
        return theirs.predict_logits_from_preprocessed_data(torch.as_tensor(data))


def their_labels(
    model: nnunet.Model, logits: torch.Tensor, properties: dict[str, Any]
) -> np.ndarray:
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        model.plans_manager,
        model.configuration_manager,
        model.label_manager,
        properties,
        num_threads_torch=1,
    )


CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "2d": ((16, 16), (5, 30, 27), {}),
    "2d-odd": ((16, 12), (3, 37, 19), {"margin": 0}),
    "2d-one-slice": ((16, 16), (1, 20, 30), {}),
    "2d-smaller-than-patch": ((32, 24), (4, 19, 15), {}),
    "2d-patch-larger-in-one-axis": ((32, 16), (4, 21, 40), {}),
    "2d-transposed": ((16, 16), (20, 26, 9), {"transpose": (2, 0, 1)}),
    "2d-resampled": ((16, 16), (5, 20, 22), {"spacing": (1.6, 1.4)}),
    "2d-resampled-transposed": (
        (16, 16),
        (20, 9, 24),
        {"spacing": (1.6, 0.7), "transpose": (1, 0, 2)},
    ),
    "3d": ((12, 16, 8), (15, 26, 17), {}),
    "3d-smaller-than-patch": ((16, 16, 16), (9, 13, 11), {}),
    "3d-patch-larger-in-one-axis": ((16, 8, 8), (7, 19, 14), {"margin": 0}),
    "3d-resampled": (
        (8, 8, 8),
        (16, 20, 14),
        {"spacing": (1.3, 1.7, 1.2), "mirror": (2,)},
    ),
    "3d-upsampled-transposed": (
        (8, 8, 8),
        (10, 14, 9),
        {"spacing": (0.8, 0.9, 0.6), "transpose": (1, 2, 0), "mirror": (0,)},
    ),
    "3d-separate-z": (
        (8, 16, 16),
        (9, 24, 25),
        {"mirror": (1,), "spacing": (5.0, 1.3, 1.2), "voxel": (4.0, 1.0, 1.0)},
    ),
    "3d-separate-last-axis": (
        (8, 16, 16),
        (24, 25, 9),
        {"mirror": (1,), "spacing": (1.3, 1.2, 3.1), "voxel": (1.0, 1.0, 4.0)},
    ),
    "3d-separate-z-kept": (
        (8, 16, 16),
        (9, 24, 25),
        {"mirror": (1,), "spacing": (4.0, 1.3, 1.2), "voxel": (4.0, 1.0, 1.0)},
    ),
}


def make_case(
    name: str, **more: Any
) -> tuple[nnunet.Model, np.ndarray, dict[str, Any]]:
    patch, shape, options = CASES[name]
    options = dict(options)
    margin = options.pop("margin", 2)
    voxel = options.pop("voxel", (1.0, 1.0, 1.0))
    model = make_model(patch, **options, **more)
    return model, *preprocess(model, make_image(shape, margin=margin), voxel)


@pytest.mark.parametrize("name", CASES)
def test_same_logits_and_labels_as_nnunet(name: str) -> None:
    model, data, properties = make_case(name)
    exact = their_logits(model, data)
    half = their_logits(model, data, sums=torch.float16)
    ours = predictor.predict_logits(model, data)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-4)
    assert half.dtype == torch.float16

    labels = predictor.to_label_map(model, ours, properties)
    expected = their_labels(model, exact, properties)
    assert labels.dtype == np.uint8
    assert labels.shape == expected.shape
    assert (labels == expected).mean() >= 0.999
    assert (labels == their_labels(model, half, properties)).mean() >= 0.995
    assert len(np.unique(expected)) > 2  # or agreement would mean little


@pytest.mark.parametrize("mirroring", [True, False])
@pytest.mark.parametrize("tile_step", [0.5, 0.75, 1.0])
def test_mirroring_and_tile_step(mirroring: bool, tile_step: float) -> None:
    model, data, _ = make_case("2d")
    expected = their_logits(model, data, mirroring, tile_step)
    ours = predictor.predict_logits(model, data, mirroring, tile_step)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_mirroring_and_tile_step_matter() -> None:
    model, data, _ = make_case("2d")
    usual = predictor.predict_logits(model, data)
    for other in ({"mirroring": False}, {"tile_step": 0.75}):
        assert (
            predictor.predict_logits(model, data, **other) - usual
        ).abs().max() > 0.1


@pytest.mark.parametrize("axes", [None, (), (1,)])
def test_only_allowed_axes_are_mirrored(axes: tuple[int, ...] | None) -> None:
    model, data, _ = make_case("2d")
    model = replace(model, allowed_mirroring_axes=axes)
    expected = their_logits(model, data, mirroring=bool(axes))
    ours = predictor.predict_logits(model, data)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["2d", "3d-smaller-than-patch"])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
def test_batch_size_does_not_matter(name: str, batch_size: int) -> None:
    model, data, _ = make_case(name)
    model = replace(model, allowed_mirroring_axes=(0, 1))
    torch.testing.assert_close(
        predictor.predict_logits(model, data, batch_size=batch_size),
        predictor.predict_logits(model, data),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", ["2d", "2d-one-slice", "3d"])
def test_threads_do_not_matter(name: str) -> None:
    model, data, _ = make_case(name)
    model = replace(model, allowed_mirroring_axes=(1,))
    expected = predictor.predict_logits(model, data, batch_size=2)
    torch.set_num_threads(3)
    several = predictor.predict_logits(model, data, batch_size=2)
    assert torch.get_num_threads() == 3
    torch.testing.assert_close(several, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(predictor.predict_logits(model, data, batch_size=2), several)


def test_errors_in_threads_are_passed_on() -> None:
    model, data, _ = make_case("2d")
    network = OutOfMemory(0, RuntimeError("shapes do not fit"))
    torch.set_num_threads(2)
    with pytest.raises(RuntimeError, match="shapes"):
        predictor.predict_logits(replace(model, network=network), data, batch_size=16)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("n_tiles", "most", "workers", "expected"),
    [
        (56, 12, 1, 12),  # 5 rounds: 12, 12, 12, 12, 8
        (56, 12, 2, 10),  # 3 rounds of 2
        (8, 100, 2, 4),
        (1, 0, 1, 1),
        (7, 0, 4, 1),
    ],
)
def test_work_is_shared_evenly(
    n_tiles: int, most: int, workers: int, expected: int
) -> None:
    assert predictor._tiles_at_once(n_tiles, most, workers) == expected


def test_bfloat16_is_close() -> None:
    model, data, _ = make_case("2d")
    usual = predictor.predict_logits(model, data)
    coarse = predictor.predict_logits(model, data, bfloat16=True)
    assert coarse.dtype == torch.float32
    difference = (coarse - usual).abs()
    assert 1e-4 < difference.max() < 0.5
    assert (coarse.argmax(0) == usual.argmax(0)).float().mean() > 0.95


class OutOfMemory(torch.nn.Module):
    """Raises `error` for batches of more than `limit` images, and notes their sizes."""

    def __init__(self, limit: int, error: Exception) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.limit, self.error = limit, error
        self.sizes: list[int] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> OutOfMemory:
        return self  # on a CPU, a copy of the network is used

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        if len(x) > self.limit:
            raise self.error
        return torch.cat([x, -x], dim=1) * self.scale


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_batch_is_halved_once_when_memory_runs_out(error: Exception) -> None:
    model, data, _ = make_case("2d")
    network = OutOfMemory(10, error)
    ours = predictor.predict_logits(
        replace(model, network=network), data, batch_size=16
    )
    assert network.sizes[:2] == [16, 8]
    assert max(network.sizes[1:]) <= 8
    torch.testing.assert_close(ours[:2], torch.as_tensor(data))

    again = OutOfMemory(6, error)
    with pytest.raises(type(error)):
        predictor.predict_logits(replace(model, network=again), data, batch_size=16)
    assert again.sizes == [16, 8]


def test_other_errors_are_not_retried() -> None:
    model, data, _ = make_case("2d")
    network = OutOfMemory(0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        predictor.predict_logits(replace(model, network=network), data, batch_size=16)
    assert len(network.sizes) == 1


def test_logits_that_are_not_finite_are_refused() -> None:
    model, data, _ = make_case("2d")
    data[0, 1, 5, 5] = np.nan
    with pytest.raises(RuntimeError, match="not finite"):
        predictor.predict_logits(model, data)


def test_another_resampling_is_left_to_nnunet() -> None:
    model, data, properties = make_case("2d-resampled")
    configuration = copy.deepcopy(model.configuration_manager.configuration)
    configuration["resampling_fn_probabilities_kwargs"]["order"] = 0
    model = replace(model, configuration_manager=ConfigurationManager(configuration))
    logits = predictor.predict_logits(model, data)
    expected = their_labels(model, logits, properties)
    assert np.array_equal(predictor.to_label_map(model, logits, properties), expected)


def test_networks_trained_on_regions_are_refused() -> None:
    model, data, properties = make_case("2d")
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    manager = model.plans_manager.get_label_manager(
        {"labels": labels, "regions_class_order": [1, 2]}
    )
    with pytest.raises(ValueError, match="regions"):
        predictor.to_label_map(
            replace(model, label_manager=manager), torch.as_tensor(data), properties
        )


def write_reference(labels: np.ndarray, path: Path) -> None:
    image = SimpleITK.GetImageFromArray(labels)
    image.SetSpacing((1.0, 1.0, 1.0))
    SimpleITK.WriteImage(image, str(path))


def run_cell(
    folder: Path, reference: np.ndarray | None = None, **options: Any
) -> tuple[dict[str, float], np.ndarray, dict[str, Any]]:
    model, data, properties = make_case("2d")
    seconds = predictor.run_cell(
        model,
        data,
        properties,
        folder / "label.nii.gz",
        folder / "predictions" / "case.nii.gz",
        folder / "scores" / "case.json",
        "finetuned/A",
        "B",
        LABELS,
        REGIONS,
        options,
        reference,
    )
    labels = predict_labels(model, data, properties, **options)
    return seconds, labels, properties


def test_cell_writes_label_map_and_score(tmp_path: Path) -> None:
    reference = np.random.default_rng(0).integers(0, 4, CASES["2d"][1], np.uint8)
    write_reference(reference, tmp_path / "label.nii.gz")
    seconds, labels, properties = run_cell(tmp_path, mirroring=False)
    assert set(seconds) == {"network", "resample", "write", "score"}
    assert min(seconds.values()) >= 0

    prediction = tmp_path / "predictions" / "case.nii.gz"
    image = SimpleITK.ReadImage(str(prediction))
    assert image.GetPixelID() == SimpleITK.sitkUInt8
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), labels)
    geometry = properties["sitk_stuff"]
    assert image.GetSpacing() == geometry["spacing"]
    assert image.GetOrigin() == geometry["origin"]
    assert image.GetDirection() == geometry["direction"]

    record = json.loads((tmp_path / "scores" / "case.json").read_text())
    assert (record["model"], record["case"]) == ("finetuned/A", "B")
    assert record["device"] == "cpu"
    assert record["seconds"] == seconds
    assert list(record["labels"]) == ["edema", "core", "enhancing"]
    metrics = compute_metrics(
        str(tmp_path / "label.nii.gz"),
        str(prediction),
        SimpleITKIO(),
        [1, 2, 3, *REGIONS.values()],
    )["metrics"]
    ours = [*record["labels"].values(), *record["regions"].values()]
    for counts, theirs in zip(ours, metrics.values(), strict=True):
        for key, value in counts.items():
            assert value == theirs[key if key.startswith("n_") else key.upper()]
    # Nothing else is left behind.
    assert [p.name for p in prediction.parent.iterdir()] == ["case.nii.gz"]


def test_cell_takes_a_reference_from_memory(tmp_path: Path) -> None:
    reference = np.zeros(CASES["2d"][1], np.uint8)
    run_cell(tmp_path, reference)
    record = json.loads((tmp_path / "scores" / "case.json").read_text())
    assert record["regions"]["WT"]["n_ref"] == 0
    assert record["regions"]["WT"]["fp"] > 0


@pytest.mark.parametrize("damage", ["missing", "garbage", "shape"])
def test_bad_reference_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "label.nii.gz"
    if damage == "garbage":
        path.write_bytes(b"no image")
    elif damage == "shape":
        write_reference(np.zeros((3, 4, 5), np.uint8), path)
    with pytest.raises(UserError, match=r"label\.nii\.gz"):
        run_cell(tmp_path)
    assert not (tmp_path / "scores").exists()


def test_label_maps_of_whole_floats_are_read(tmp_path: Path) -> None:
    path = tmp_path / "label.nii.gz"
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    write_reference(values, path)
    labels = predictor.read_label_map(path)
    assert labels.dtype.kind == "i"
    assert np.array_equal(labels, values)
    write_reference(values + 0.5, path)
    with pytest.raises(UserError, match="whole numbers"):
        predictor.read_label_map(path)


@pytest.mark.skipif(not PATIENTS.is_dir(), reason="no real patients beside the project")
@pytest.mark.parametrize(
    ("patch", "spacing"), [((64, 48), (3.0, 3.0)), ((24, 24, 24), (5.0, 5.0, 5.0))]
)
def test_same_on_a_real_patient(
    patch: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    path = sorted(PATIENTS.glob("imagesTr/*.nii.gz"))[0]
    image = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    step = 12 if len(spacing) == 2 else 2  # fewer slices suffice
    model = make_model(patch, spacing, channels=4, mirror=(1,))
    data, properties = preprocess(
        model, image[:, ::step].astype(np.float32), (step, 1.0, 1.0)
    )
    expected = their_labels(model, their_logits(model, data), properties)
    labels = predict_labels(model, data, properties)
    assert len(np.unique(expected)) > 2
    assert (labels == expected).mean() >= 0.999


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["2d-resampled", "3d-separate-z"])
def test_same_on_cuda(name: str) -> None:
    model, data, properties = make_case(name)
    expected = predict_labels(model, data, properties)
    model.network.to("cuda")
    labels = predict_labels(model, data, properties)
    assert (labels == expected).mean() >= 0.99
