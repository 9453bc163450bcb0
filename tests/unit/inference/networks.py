"""Small networks and cases, and what nnU-Net's own predictor makes of them."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import (
    DefaultPreprocessor,
)
from nnunetv2.utilities.plans_handling.plans_handler import (
    PlansManager,
)

from casesim.inference import label_maps, sliding_window
from casesim.nnunet import checkpoints, planning

LABELS = {"background": 0, "edema": 1, "core": 2, "enhancing": 3}


SHARED = Path(os.environ.get("CASESIM_SHARED", Path(__file__).parents[4] / "shared"))


PATIENTS = SHARED / "data" / "Task01_BrainTumour"


def predict_labels(
    model: checkpoints.Model,
    data: np.ndarray,
    properties: dict[str, Any],
    **options: Any,
) -> np.ndarray:
    """Label map of a preprocessed case, as `run_cell` makes it."""
    logits = sliding_window.predict_logits(model, data, **options)
    return label_maps.to_label_map(model, logits, properties)


def make_model(
    patch: tuple[int, ...],
    spacing: tuple[float, ...] | None = None,
    transpose: tuple[int, ...] = (0, 1, 2),
    channels: int = 2,
    mirror: tuple[int, ...] | None = None,
    seed: int = 0,
    residual: bool = False,
) -> checkpoints.Model:
    """A tiny untrained network with plans as nnU-Net writes them.

    `residual` is the architecture of nnU-Net's presets ResEncM, L and XL.
    """
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
                "dynamic_network_architectures.architectures.unet."
                + ("ResidualEncoderUNet" if residual else "PlainConvUNet")
            ),
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [8, 16, 32],
                "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
                "kernel_sizes": [[3] * dim] * 3,
                "strides": [[1] * dim, [2] * dim, [2] * dim],
                **(
                    {"n_blocks_per_stage": [1, 3, 2]}
                    if residual
                    else {"n_conv_per_stage": [2, 2, 2]}
                ),
                "n_conv_per_stage_decoder": [1, 1] if residual else [2, 2],
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
        "dataset_name": planning.DATASET,
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
    network = checkpoints.build_network(
        manager, manager.get_configuration(name), dataset, False, True
    )
    with torch.no_grad():
        for module in network.modules():
            # Untrained affine parameters are 1 and 0, which would hide mistakes.
            if isinstance(module, torch.nn.modules.instancenorm._InstanceNorm):
                module.weight.uniform_(0.3, 2)
                module.bias.uniform_(-0.5, 0.5)
    return checkpoints.Model(
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
    model: checkpoints.Model, image: np.ndarray, spacing: tuple[float, float, float]
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
    model: checkpoints.Model, mirroring: bool = True, tile_step: float = 0.5
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
    model: checkpoints.Model,
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
    model: checkpoints.Model, logits: torch.Tensor, properties: dict[str, Any]
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
    "2d-residual": ((16, 16), (5, 30, 27), {"residual": True}),
    "3d": ((12, 16, 8), (15, 26, 17), {}),
    "3d-residual": ((12, 16, 8), (15, 26, 17), {"residual": True}),
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
) -> tuple[checkpoints.Model, np.ndarray, dict[str, Any]]:
    patch, shape, options = CASES[name]
    options = dict(options)
    margin = options.pop("margin", 2)
    voxel = options.pop("voxel", (1.0, 1.0, 1.0))
    model = make_model(patch, **options, **more)
    return model, *preprocess(model, make_image(shape, margin=margin), voxel)


def write_reference(labels: np.ndarray, path: Path) -> None:
    image = SimpleITK.GetImageFromArray(labels)
    image.SetSpacing((1.0, 1.0, 1.0))
    SimpleITK.WriteImage(image, str(path))
