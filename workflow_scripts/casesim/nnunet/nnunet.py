"""The only module that touches nnU-Net's plans, preprocessing, paths and checkpoints.

Everything that it writes is in nnU-Net's own format, so that nnU-Net's command-line
tools work on it. Arrays are (channel, z, y, x) as SimpleITK gives them, spacings (z, y,
x) in mm, until nnU-Net's preprocessing puts the axes in the order of the plans.

nnU-Net, torch and blosc2 are imported inside the functions: they take seconds, and what
only needs a name from here should not wait for them.
"""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casesim.errors import UserError
from casesim.files import atomic_path

if TYPE_CHECKING:
    import numpy as np
    import torch
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.plans_handling.plans_handler import (
        ConfigurationManager,
        PlansManager,
    )

DATASET = "Dataset001_Cohort"
PLANS = "nnUNetPlans"
FILE_ENDING = ".nii.gz"
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")
STORAGE = ("float32", "float16")

# nnU-Net draws 10^8 voxels with replacement from the lesions of the whole data set, for
# the intensity statistics that only CT normalisation uses. This many a case are the
# same for a hundred cases, and save minutes for a few.
_SAMPLED_VOXELS_PER_CASE = 10**6

PathLike = str | os.PathLike[str]


@contextmanager
def environment(**variables: PathLike) -> Iterator[None]:
    """Set environment variables for nnU-Net, which reads its paths from nowhere
    else."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: os.fspath(value) for name, value in variables.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def read_json(path: PathLike) -> dict[str, Any]:
    """Read a JSON object; `UserError` names the file when it is missing or damaged."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing.") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Delete it; it is made again."
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object. Delete it; it is made again.")
    return content


def write_json(path: PathLike, content: Any) -> None:
    """Write JSON, atomically."""
    with atomic_path(path) as temporary:
        # Not sorted: the order of labels and channels has a meaning for nnU-Net.
        temporary.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def dataset_json(
    pool: Sequence[str], channel_names: Sequence[str], labels: Mapping[str, int]
) -> dict[str, Any]:
    """nnU-Net's dataset.json, with the cases listed one by one.

    The explicit list keeps held-out cases, whose files lie in the same folders, out of
    the fingerprint. Paths are relative to the raw folder.
    """
    return {
        "name": DATASET,
        "channel_names": {str(i): name for i, name in enumerate(channel_names)},
        "labels": {name: int(value) for name, value in labels.items()},
        "numTraining": len(pool),
        "file_ending": FILE_ENDING,
        "overwrite_image_reader_writer": "SimpleITKIO",
        "dataset": {
            case: {
                "images": [
                    f"imagesTr/{case}_{channel:04d}{FILE_ENDING}"
                    for channel in range(len(channel_names))
                ],
                "label": f"labelsTr/{case}{FILE_ENDING}",
            }
            for case in sorted(pool)
        },
    }


def plan(
    raw: PathLike,
    preprocessed: PathLike,
    pool: Sequence[str],
    channel_names: Sequence[str],
    labels: Mapping[str, int],
    nnunet_config: Mapping[str, Any],
    processes: int,
) -> None:
    """Run nnU-Net's own fingerprint extraction and planning over the pool.

    Writes `raw`/dataset.json and, in `preprocessed`, dataset.json,
    dataset_fingerprint.json and nnUNetPlans.json. Nothing of an earlier plan is reused:
    nnU-Net works in an empty temporary folder, as it would otherwise keep an old
    fingerprint and merge old configurations.

    `raw` and `preprocessed` are the folders of the data set, `labels` includes
    background 0, and `nnunet_config` has `configuration`, `target_spacing` (z, y, x in
    mm, or None), `gpu_memory_target_gb` and `batch_size` (None for the planner's). The
    caller needs a main guard: nnU-Net spawns processes.

    Raises `UserError` when the configuration cannot be had for these images.
    """
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (  # noqa: E501
        ExperimentPlanner,
    )

    configuration = nnunet_config["configuration"]
    if configuration not in CONFIGURATIONS:
        raise UserError(
            f"nnunet.configuration is {configuration!r}; use one of "
            f"{', '.join(CONFIGURATIONS)}. The cascade (3d_cascade_fullres) needs "
            "predictions of another model as its input, for every model and case."
        )
    raw, preprocessed = Path(raw), Path(preprocessed)
    dataset = dataset_json(pool, channel_names, labels)
    spacing = nnunet_config.get("target_spacing")
    processes = max(1, min(processes, len(pool)))
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        work_raw = Path(folder, "raw", DATASET)
        work = Path(folder, "preprocessed", DATASET)
        work_raw.mkdir(parents=True)
        work.mkdir(parents=True)
        absolute = {
            case: {
                "images": [str((raw / image).absolute()) for image in files["images"]],
                "label": str((raw / files["label"]).absolute()),
            }
            for case, files in dataset["dataset"].items()
        }
        write_json(work_raw / "dataset.json", dataset | {"dataset": absolute})
        with environment(
            nnUNet_raw=work_raw.parent,
            nnUNet_preprocessed=work.parent,
            # The planner takes this as a number of threads and refuses 0.
            nnUNet_n_proc_DA=str(processes),
        ):
            extractor = DatasetFingerprintExtractor(DATASET, processes)
            extractor.show_progress_bar = False
            extractor.num_foreground_voxels_for_intensitystats = min(
                extractor.num_foreground_voxels_for_intensitystats,
                _SAMPLED_VOXELS_PER_CASE * len(pool),
            )
            extractor.run(overwrite_existing=True)
            planner = ExperimentPlanner(
                DATASET,
                gpu_memory_target_in_gb=nnunet_config["gpu_memory_target_gb"],
                plans_name=PLANS,
                overwrite_target_spacing=(
                    [float(value) for value in spacing] if spacing else None
                ),
            )
            planner.plan_experiment()
        fingerprint = read_json(work / "dataset_fingerprint.json")
        plans = read_json(work / f"{PLANS}.json")
    if configuration not in plans["configurations"]:
        raise UserError(_missing_configuration(configuration, plans))
    if nnunet_config.get("batch_size"):
        plans["configurations"][configuration]["batch_size"] = nnunet_config[
            "batch_size"
        ]
    write_json(raw / "dataset.json", dataset)
    write_json(preprocessed / "dataset.json", dataset)
    write_json(preprocessed / "dataset_fingerprint.json", fingerprint)
    write_json(preprocessed / f"{PLANS}.json", plans)


def _missing_configuration(configuration: str, plans: Mapping[str, Any]) -> str:
    available = [c for c in plans["configurations"] if c in CONFIGURATIONS]
    shape = " x ".join(map(str, plans["original_median_shape_after_transp"]))
    reason = "the images have a single slice"
    if configuration == "3d_lowres" and "3d_fullres" in plans["configurations"]:
        patch = plans["configurations"]["3d_fullres"]["patch_size"]
        reason = (
            f"the images (median {shape} voxels) are hardly larger than the patch of "
            f"3d_fullres ({' x '.join(map(str, patch))} voxels), and a coarser copy "
            "would show the network nothing more"
        )
    return (
        f"nnU-Net planned no configuration {configuration} for this cohort: {reason}. "
        f"Set nnunet.configuration to one of {', '.join(available)}; for coarser "
        "images set nnunet.target_spacing."
    )


def load_plans(
    plans: PathLike, configuration: str
) -> tuple[PlansManager, ConfigurationManager]:
    """nnU-Net's managers of a plans file; `UserError` when it lacks the
    configuration."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    content = read_json(plans)
    if configuration not in content.get("configurations", {}):
        raise UserError(
            f"{plans} has no configuration {configuration}. It was made for another "
            "nnunet.configuration: delete it, so that the planning is done again."
        )
    manager = PlansManager(content)
    return manager, manager.get_configuration(configuration)


def read_case(
    images: Sequence[PathLike], label: PathLike
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Read a raw case with nnU-Net's reader.

    Returns the image as float32 (channel, z, y, x), the label as int16 (z, y, x) and
    the spacing (z, y, x) in mm.
    """
    import numpy as np
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    reader = SimpleITKIO()
    data, properties = reader.read_images([os.fspath(image) for image in images])
    seg, _ = reader.read_seg(os.fspath(label))
    spacing = [float(value) for value in properties["spacing"]]
    return data, seg[0].astype(np.int16), spacing


def preprocess_case(
    images: Sequence[PathLike],
    label: PathLike,
    plans: PathLike,
    dataset: PathLike,
    configuration: str,
    stem: PathLike,
) -> None:
    """Crop, normalise and resample one case with nnU-Net's preprocessor of the plans.

    Writes `stem`.b2nd, `stem`_seg.b2nd and `stem`.pkl as
    `DefaultPreprocessor.run_case_save` does. `images` has one file for each channel, in
    order.
    """
    plans_manager, configuration_manager = load_plans(plans, configuration)
    preprocessor = configuration_manager.preprocessor_class(verbose=False)
    data, seg, properties = preprocessor.run_case(
        [os.fspath(image) for image in images],
        os.fspath(label),
        plans_manager,
        configuration_manager,
        read_json(dataset),
    )
    _save_preprocessed(data, seg, properties, configuration_manager, stem)


def preprocess_arrays(
    data: np.ndarray,
    label: np.ndarray,
    spacing: Sequence[float],
    plans: PathLike,
    dataset: PathLike,
    configuration: str,
    stem: PathLike,
) -> None:
    """As `preprocess_case`, for an image in memory: no detour through NIfTI files.

    `data` is (channel, z, y, x), `label` (z, y, x), `spacing` (z, y, x) in mm. The
    stored properties lack the geometry of an image file, so that the case serves for
    training only.
    """
    import numpy as np

    plans_manager, configuration_manager = load_plans(plans, configuration)
    preprocessor = configuration_manager.preprocessor_class(verbose=False)
    data, seg, properties = preprocessor.run_case_npy(
        data,
        label[None].astype(np.float32),  # the type that nnU-Net's readers give
        {"spacing": [float(value) for value in spacing]},
        plans_manager,
        configuration_manager,
        read_json(dataset),
    )
    _save_preprocessed(data, seg, properties, configuration_manager, stem)


def _save_preprocessed(
    data: np.ndarray,
    seg: np.ndarray,
    properties: dict[str, Any],
    configuration_manager: ConfigurationManager,
    stem: PathLike,
) -> None:
    import numpy as np
    from nnunetv2.training.dataloading.nnunet_dataset import (
        comp_blosc2_params,
        nnUNetDatasetBlosc2,
    )

    data = data.astype(np.float32, copy=False)
    seg = seg.astype(np.int16, copy=False)
    patch_size = tuple(configuration_manager.patch_size)
    blocks, chunks = comp_blosc2_params(data.shape, patch_size, data.itemsize)
    blocks_seg, chunks_seg = comp_blosc2_params(seg.shape, patch_size, seg.itemsize)
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=stem.parent) as folder:
        temporary = Path(folder, "case")
        nnUNetDatasetBlosc2.save_case(
            data,
            seg,
            properties,
            str(temporary),
            chunks=chunks,
            blocks=blocks,
            chunks_seg=chunks_seg,
            blocks_seg=blocks_seg,
        )
        for suffix in (".b2nd", "_seg.b2nd", ".pkl"):
            Path(f"{temporary}{suffix}").replace(f"{stem}{suffix}")


def open_preprocessed(stem: PathLike) -> tuple[Any, Any]:
    """Open data and segmentation of a preprocessed case without reading them (blosc2).

    Both have `shape` and `dtype` and are read by slicing, also in part.
    """
    return _open(f"{stem}.b2nd"), _open(f"{stem}_seg.b2nd")


def load_preprocessed(
    stem: PathLike, with_seg: bool = False
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """Read a preprocessed case: data, segmentation, properties.

    `stem` is the path without `.b2nd`. The data are float32 (channel, ...) and the
    segmentation int16 (1, ...) with -1 outside the brain, both with the axes in the
    order of the plans; the segmentation is None unless asked for. Raises `UserError`
    naming the file that is missing or damaged.
    """
    data = _read(f"{stem}.b2nd")
    seg = _read(f"{stem}_seg.b2nd") if with_seg else None
    return data, seg, load_properties(stem)


def load_properties(stem: PathLike) -> dict[str, Any]:
    """What nnU-Net's preprocessing noted about a case: crop, spacing, class
    locations."""
    path = Path(f"{os.fspath(stem)}.pkl")
    try:
        return pickle.loads(path.read_bytes())
    except Exception as error:  # a damaged pickle can raise anything
        raise _damaged(path, error) from None


def _open(path: str) -> Any:
    import blosc2

    try:
        # Mapped, as in nnU-Net's data set, for many small reads. Not on Windows
        # (#2723).
        mapped = {} if os.name == "nt" else {"mmap_mode": "r"}
        return blosc2.open(path, mode="r", dparams={"nthreads": 1}, **mapped)
    except Exception as error:  # blosc2 raises what its C library happens to meet
        raise _damaged(path, error) from None


def _read(path: str) -> np.ndarray:
    array = _open(path)
    try:
        return array[:]
    except Exception as error:  # as above, for damage further on in the file
        raise _damaged(path, error) from None


def _damaged(path: PathLike, error: Exception) -> UserError:
    if not Path(path).exists():
        return UserError(f"{path} is missing. Run the workflow again to make it.")
    return UserError(
        f"{path} is damaged ({error}). Delete it and run the workflow again."
    )


@dataclass(frozen=True)
class Model:
    """A network ready for inference, and what nnU-Net knows about its input and output.

    `network` is in evaluation mode, without deep supervision, in float32 on its device.
    `allowed_mirroring_axes` are spatial axes of the plans' order, 0 being the first.
    """

    network: torch.nn.Module
    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    dataset_json: dict[str, Any]
    label_manager: LabelManager
    allowed_mirroring_axes: tuple[int, ...] | None
    configuration: str


def read_checkpoint(path: PathLike) -> dict[str, Any]:
    """Read a checkpoint to the CPU, its weights as float32.

    Only tensors and plain data are accepted (`weights_only`): a checkpoint can be
    shared without being able to run code. Raises `UserError` naming a missing or
    damaged file.
    """
    import torch

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["network_weights"] = _convert(
            checkpoint["network_weights"], torch.float32
        )
    except Exception as error:  # zip, pickle and torch errors alike
        raise _damaged(path, error) from None
    return dict(checkpoint)


def build_network(
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    dataset: Mapping[str, Any],
    deep_supervision: bool,
    initialise: bool,
) -> torch.nn.Module:
    """nnU-Net's network of the plans (`nnUNetTrainer.build_network_architecture`)."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import (
        determine_num_input_channels,
    )

    return get_network_from_plans(
        configuration_manager.network_arch_class_name,
        configuration_manager.network_arch_init_kwargs,
        configuration_manager.network_arch_init_kwargs_req_import,
        determine_num_input_channels(plans_manager, configuration_manager, dataset),
        plans_manager.get_label_manager(dataset).num_segmentation_heads,
        allow_init=initialise,
        deep_supervision=deep_supervision,
    )


def load_model(checkpoint_path: PathLike, device: str | torch.device) -> Model:
    """Load a model folder's checkpoint for inference.

    `checkpoint_path` is FOLDER/fold_all/checkpoint_final.pth, with plans.json and
    dataset.json in FOLDER. Raises `UserError` naming the file that is missing, damaged
    or does not fit the plans.
    """
    import torch

    folder = Path(checkpoint_path).parent.parent
    dataset = read_json(folder / "dataset.json")
    checkpoint = read_checkpoint(checkpoint_path)
    try:
        configuration = checkpoint["init_args"]["configuration"]
        axes = checkpoint["inference_allowed_mirroring_axes"]
    except (KeyError, TypeError) as error:
        raise _damaged(checkpoint_path, error) from None
    plans_manager, configuration_manager = load_plans(
        folder / "plans.json", configuration
    )
    # No memory is filled with random weights only to be overwritten.
    with torch.device("meta"):
        network = build_network(
            plans_manager,
            configuration_manager,
            dataset,
            deep_supervision=False,
            initialise=False,
        )
    try:
        network.load_state_dict(checkpoint["network_weights"], assign=True)
    except RuntimeError as error:
        raise UserError(
            f"The weights in {checkpoint_path} do not fit {folder / 'plans.json'} "
            f"({error}). Delete the folder {folder} and run the workflow again."
        ) from None
    return Model(
        network=network.to(device).requires_grad_(False).eval(),
        plans_manager=plans_manager,
        configuration_manager=configuration_manager,
        dataset_json=dataset,
        label_manager=plans_manager.get_label_manager(dataset),
        allowed_mirroring_axes=None if axes is None else tuple(axes),
        configuration=configuration,
    )


def save_model(
    folder: PathLike,
    network_state: Mapping[str, torch.Tensor],
    plans: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    configuration: str,
    mirroring_axes: Sequence[int] | None,
    storage: str = "float32",
) -> Path:
    """Write a model folder that nnU-Net's own predictor loads; returns the checkpoint.

    FOLDER/plans.json, FOLDER/dataset.json and FOLDER/fold_all/checkpoint_final.pth, the
    last one last. The trainer's name is nnU-Net's, so that
    `nnUNetv2_predict_from_modelfolder -m FOLDER -f all` needs nothing of ours. There is
    no optimizer state, which is as large as the weights. `storage` float16 halves the
    rest; it is float32 again when loaded.
    """
    import torch

    if storage not in STORAGE:
        raise ValueError(f"storage is {storage!r}, not one of {', '.join(STORAGE)}")
    folder = Path(folder)
    write_json(folder / "plans.json", dict(plans))
    write_json(folder / "dataset.json", dict(dataset_json))
    checkpoint = folder / "fold_all" / "checkpoint_final.pth"
    save_checkpoint(
        checkpoint,
        {
            "network_weights": _convert(network_state, getattr(torch, storage)),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": configuration, "fold": "all"},
            "inference_allowed_mirroring_axes": (
                None if mirroring_axes is None else tuple(mirroring_axes)
            ),
        },
    )
    return checkpoint


def save_checkpoint(path: PathLike, content: Mapping[str, Any]) -> None:
    """`torch.save`, atomically, and the same bytes for the same content."""
    import torch

    # Given a path, torch.save writes the (temporary) file name into the archive.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(dict(content), file)


def _convert(
    state: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Copy weights to the CPU in another type, entries that share memory still sharing
    it.

    nnU-Net's networks list each convolution under several names; a copy for each would
    make the file several times as large.
    """
    converted: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}
    result = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if key not in converted:
            kind = dtype if tensor.is_floating_point() else tensor.dtype
            converted[key] = tensor.detach().to("cpu", kind)
        result[name] = converted[key]
    return result
