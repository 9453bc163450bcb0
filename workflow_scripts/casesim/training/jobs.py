"""The jobs of this room that the warm process can do; see `casesim.processes.jobs`."""

from collections.abc import Mapping, Sequence
from typing import Any

from casesim.nnunet.jobs import PREPROCESSING

IMPORTS = {
    "train": (
        "casesim.processes.devices",
        "casesim.training.cascade",
        "dynamic_network_architectures.architectures.unet",
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
        # What matplotlib's first picture makes pillow import.
        *(f"PIL.{kind}ImagePlugin" for kind in ("Bmp", "Gif", "Jpeg", "Png", "Ppm")),
    ),
    "augment_case": ("casesim.training.augmentation", *PREPROCESSING),
}


def train(
    cases: Sequence[str],
    plans: str,
    dataset: str,
    model: str,
    training: Mapping[str, Any],
    settings: Mapping[str, Any],
    threads: int,
    gpu: int,
    memory_mb: float,
    start_from: str | None = None,
) -> None:
    """Train a model on a free device: the base, a fine-tuned or a retrained one.

    `cases` are preprocessed cases (paths without `.b2nd`), those of a cascade for both
    stages, and `model` is the folder to write. `training` has all that the weights
    depend on beside the files: `configuration`, `schedule`, `seed` and `storage`;
    `settings` what they do not depend on: `checkpoint_minutes`, `validate_every` and
    `compile`. `gpu` is the number of GPUs that the job has, `memory_mb` its memory, of
    which cases get half; on a CPU, where a training runs on each core, not more than a
    core's share of what is free. For the rest, and for what is raised, see `run.train`
    and `cascade.train`.
    """
    from casesim.nnunet import compiling
    from casesim.processes import devices, places
    from casesim.training import cascade

    with devices.acquire(gpu) as device:
        if device == "cpu":
            # Cases are read from disk rather than by each of many trainings kept.
            free = places.available_memory() / 2**20
            memory_mb = min(memory_mb, free * places.share_of_memory())
        cascade.train(
            cases,
            plans,
            dataset,
            out_folder=model,
            threads=places.threads_on(device, threads),
            device=device,
            start_from=start_from,
            memory_mb=memory_mb / 2,
            checkpoint_minutes=settings["checkpoint_minutes"],
            validate_every=settings["validate_every"],
            compile_network=settings.get("compile", False),
            compiler_cache=compiling.cache_beside(model),
            **training,
        )


def augment_case(
    images: Sequence[str],
    label: str,
    plans: str,
    dataset: str,
    configuration: str,
    augmentation: Mapping[str, Any],
    case: str,
    seed: int,
    stems: Sequence[str],
) -> None:
    """Write deformed copies of one case, preprocessed as all cases are.

    `images` has one file for each channel, `stems` one path (without `.b2nd`) for each
    copy and, of a cascade, each stage. What a copy looks like depends on `seed`, `case`
    and its place in `stems`; see `augmentation.augment`.
    """
    from casesim.nnunet import preprocessing, stages
    from casesim.nnunet.files import read_json
    from casesim.training.augmentation import augment

    image, label_map, spacing = preprocessing.read_case(images, label)
    names = list(read_json(dataset)["channel_names"].values())
    of_stage = stages.by_stage(stems, configuration)
    for copy, of_copy in enumerate(zip(*of_stage.values(), strict=True)):
        deformed = augment(image, label_map, augmentation, case, copy, seed, names)
        for stage, stem in zip(of_stage, of_copy, strict=True):
            preprocessing.preprocess_arrays(
                *deformed, spacing, plans, dataset, stage, stem
            )
