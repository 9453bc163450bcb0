"""nnU-Net's fingerprint and plans: what one network is made for, for all models.

nnU-Net is imported inside the functions: it takes seconds, and what only needs a name
from here should not wait for it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from casesim.errors import UserError
from casesim.nnunet import own_network, stages
from casesim.nnunet.files import PathLike, read_json, write_json
from casesim.nnunet.plausibility import check_plans, check_target_spacing

if TYPE_CHECKING:
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (  # noqa: E501
        ExperimentPlanner,
    )
    from nnunetv2.utilities.plans_handling.plans_handler import (
        ConfigurationManager,
        PlansManager,
    )


DATASET = "Dataset001_Cohort"
PLANS = "nnUNetPlans"
FILE_ENDING = ".nii.gz"
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", stages.CASCADE)

# nnU-Net's planner classes, and the GPU memory in GB that its documentation plans each
# for (documentation/resenc_presets.md).
PLANNERS = {
    "default": ("ExperimentPlanner", 8),
    "ResEncM": ("nnUNetPlannerResEncM", 8),
    "ResEncL": ("nnUNetPlannerResEncL", 24),
    "ResEncXL": ("nnUNetPlannerResEncXL", 40),
}

# nnU-Net draws 10^8 voxels with replacement from the lesions of the whole data set, for
# the intensity statistics that only CT normalisation uses. This many a case are the
# same for a hundred cases, and save minutes for a few.
_SAMPLED_VOXELS_PER_CASE = 10**6


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


def dataset_json(
    pool: Sequence[str],
    channel_names: Sequence[str],
    labels: Mapping[str, int | Sequence[int]],
    regions_class_order: Sequence[int] = (),
) -> dict[str, Any]:
    """nnU-Net's dataset.json, with the cases listed one by one.

    The explicit list keeps held-out cases, whose files lie in the same folders, out of
    the fingerprint. Paths are relative to the raw folder.
    """
    return {
        "name": DATASET,
        "channel_names": {str(i): name for i, name in enumerate(channel_names)},
        "labels": {
            name: value if isinstance(value, int) else list(value)
            for name, value in labels.items()
        },
        # What is written where a region is segmented.
        **(
            {"regions_class_order": list(regions_class_order)}
            if regions_class_order
            else {}
        ),
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
    labels: Mapping[str, int | Sequence[int]],
    nnunet_config: Mapping[str, Any],
    processes: int,
    own_plans: PathLike | None = None,
    regions_class_order: Sequence[int] = (),
) -> None:
    """Run nnU-Net's own fingerprint extraction and planning over the pool.

    Writes `raw`/dataset.json and, in `preprocessed`, dataset.json,
    dataset_fingerprint.json and nnUNetPlans.json. Nothing of an earlier plan is reused:
    nnU-Net works in an empty temporary folder, as it would otherwise keep an old
    fingerprint and merge old configurations.

    `raw` and `preprocessed` are the folders of the data set. `labels` includes
    background 0; where some are unions of numbers, networks are trained on regions, and
    `regions_class_order` says what number each region gets. `nnunet_config` has
    `configuration`, `planner` (a key of `PLANNERS`), `target_spacing` (z, y, x in mm,
    or None), `gpu_memory_target_gb` (None for what nnU-Net documents for the planner)
    and `batch_size` (None for the planner's). With `own_plans`, a file of nnU-Net's,
    nothing is planned: these are taken, with `batch_size` if it is given. The caller
    needs a main guard, and no threads: nnU-Net starts processes.

    Raises `UserError` when the configuration cannot be had for these images, or when
    plans of one's own were made for others.
    """
    configuration = nnunet_config["configuration"]
    raw, preprocessed = Path(raw), Path(preprocessed)
    dataset = dataset_json(pool, channel_names, labels, regions_class_order)
    processes = max(1, min(processes, len(pool)))
    absolute = {
        case: {
            "images": [str((raw / image).absolute()) for image in files["images"]],
            "label": str((raw / files["label"]).absolute()),
        }
        for case, files in dataset["dataset"].items()
    }
    with _empty_folders(dataset | {"dataset": absolute}, processes) as work:
        _extract_fingerprint(len(pool), processes)
        fingerprint = read_json(work / "dataset_fingerprint.json")
        if own_plans is None:
            check_target_spacing(nnunet_config.get("target_spacing"), fingerprint)
            plans = _make_plans(work, nnunet_config)
        else:
            plans = _taken_over(own_plans, fingerprint)
    if configuration not in plans["configurations"]:
        raise UserError(_missing_configuration(configuration, plans))
    for stage in stages.stages(configuration):
        if nnunet_config.get("batch_size"):
            plans["configurations"][stage]["batch_size"] = nnunet_config["batch_size"]
        check_plans(plans, stage, fingerprint, nnunet_config)
    write_json(raw / "dataset.json", dataset)
    write_json(preprocessed / "dataset.json", dataset)
    write_json(preprocessed / "dataset_fingerprint.json", fingerprint)
    write_json(preprocessed / f"{PLANS}.json", plans)


def plans_for(
    fingerprint: Mapping[str, Any],
    dataset: Mapping[str, Any],
    nnunet_config: Mapping[str, Any],
) -> dict[str, Any]:
    """nnU-Net's plans for a data set of which only the fingerprint is at hand.

    `dataset` is the content of a dataset.json, `nnunet_config` as in `plan`.
    """
    with _empty_folders(dataset, processes=1) as work:
        write_json(work / "dataset_fingerprint.json", fingerprint)
        return _make_plans(work, nnunet_config)


@contextmanager
def _empty_folders(dataset: Mapping[str, Any], processes: int) -> Iterator[Path]:
    """The folder of what is preprocessed, for a while, known to nnU-Net."""
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        work_raw = Path(folder, "raw", DATASET)
        work = Path(folder, "preprocessed", DATASET)
        work_raw.mkdir(parents=True)
        work.mkdir(parents=True)
        write_json(work_raw / "dataset.json", dataset)
        with environment(
            nnUNet_raw=work_raw.parent,
            nnUNet_preprocessed=work.parent,
            # The planner takes this as a number of threads and refuses 0.
            nnUNet_n_proc_DA=str(processes),
        ):
            yield work


def _make_plans(work: Path, nnunet_config: Mapping[str, Any]) -> dict[str, Any]:
    _planner(nnunet_config).plan_experiment()
    return read_json(work / f"{PLANS}.json")


def _extract_fingerprint(cases: int, processes: int) -> None:
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor

    extractor = fingerprint_extractor.DatasetFingerprintExtractor(DATASET, processes)
    extractor.show_progress_bar = False
    extractor.num_foreground_voxels_for_intensitystats = min(
        extractor.num_foreground_voxels_for_intensitystats,
        _SAMPLED_VOXELS_PER_CASE * cases,
    )
    with _forked_workers(fingerprint_extractor):
        extractor.run(overwrite_existing=True)


@contextmanager
def _forked_workers(module: Any) -> Iterator[None]:
    """Have a module of nnU-Net fork its workers: those that it spawns import nnU-Net
    anew, for seconds each. As it is where a system's own libraries cannot be forked."""
    if sys.platform != "linux":
        yield
        return
    spawning = module.multiprocessing
    module.multiprocessing = SimpleNamespace(
        get_context=lambda method: multiprocessing.get_context("fork")
    )
    try:
        yield
    finally:
        module.multiprocessing = spawning


def _planner(nnunet_config: Mapping[str, Any]) -> ExperimentPlanner:
    """nnU-Net's planner that the config asks for, writing plans of our name."""
    from nnunetv2.experiment_planning.experiment_planners import (
        default_experiment_planner,
    )
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
        residual_encoder_unet_planners,
    )

    name, documented_gb = PLANNERS[nnunet_config.get("planner", "default")]
    module = (
        residual_encoder_unet_planners
        if hasattr(residual_encoder_unet_planners, name)
        else default_experiment_planner
    )
    spacing = nnunet_config.get("target_spacing")
    planner: ExperimentPlanner = getattr(module, name)(
        DATASET,
        gpu_memory_target_in_gb=(
            nnunet_config.get("gpu_memory_target_gb") or documented_gb
        ),
        plans_name=PLANS,
        overwrite_target_spacing=(
            [float(value) for value in spacing] if spacing else None
        ),
    )
    return planner


def _taken_over(own_plans: PathLike, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Plans of the user's own under the names of this data set.

    As nnU-Net's `move_plans_between_datasets`; raises `UserError` for plans of other
    images (see `own_network.check_spacing`).
    """
    plans = read_json(own_plans)
    print(own_network.check_spacing(own_plans, plans, fingerprint["spacings"]))
    return plans | {
        "dataset_name": DATASET,
        "plans_name": PLANS,
        # What the cases are imported for; the array is that of nnU-Net's other readers.
        "image_reader_writer": "SimpleITKIO",
    }


def _missing_configuration(configuration: str, plans: Mapping[str, Any]) -> str:
    available = [c for c in plans["configurations"] if c in CONFIGURATIONS]
    shape = " x ".join(map(str, plans["original_median_shape_after_transp"]))
    reason = "the images have a single slice"
    coarse = ("3d_lowres", stages.CASCADE)
    if configuration in coarse and "3d_fullres" in plans["configurations"]:
        patch = plans["configurations"]["3d_fullres"]["patch_size"]
        reason = (
            "it plans a coarse stage where a patch of 3d_fullres "
            f"({' x '.join(map(str, patch))} voxels) holds less than about a quarter "
            f"of an image (here {shape} voxels, median)"
        )
    advice = (
        "Set nnunet.configuration to 3d_fullres, whose patches see as much"
        if configuration == stages.CASCADE and "3d_fullres" in available
        else f"Set nnunet.configuration to one of {', '.join(available)}; for coarser "
        "images set nnunet.target_spacing"
    )
    return (
        f"nnU-Net planned no configuration {configuration} for this cohort: {reason}. "
        f"{advice}."
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
