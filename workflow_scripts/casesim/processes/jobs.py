"""The jobs that need nnU-Net, by name, from plain values.

They are functions of text, numbers, lists and dictionaries, so that a job can hand
them to the warm process (see `warm`) or call them itself. nnU-Net is imported inside
them, or beforehand by `prepare`.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


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

    `cases` are preprocessed cases (paths without `.b2nd`) and `model` is the folder to
    write. `training` has all that the weights depend on beside the files:
    `configuration`, `schedule`, `seed` and `storage`; `settings` what they do not
    depend on: `checkpoint_minutes` and `validate_every`. `gpu` is the number of GPUs
    that the job has, `memory_mb` its memory, of which cases get half. For the rest, and
    for what is raised, see `run.train`.
    """
    from casesim.processes import devices
    from casesim.training import run

    with devices.acquire(gpu) as device:
        run.train(
            cases,
            plans,
            dataset,
            out_folder=model,
            threads=threads,
            device=device,
            start_from=start_from,
            memory_mb=memory_mb / 2,
            checkpoint_minutes=settings["checkpoint_minutes"],
            validate_every=settings["validate_every"],
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
    copy. What a copy looks like depends on `seed`, `case` and its place in `stems`; see
    `augmentation.augment`.
    """
    from casesim.nnunet import preprocessing
    from casesim.training.augmentation import augment

    image, label_map, spacing = preprocessing.read_case(images, label)
    for copy, stem in enumerate(stems):
        deformed = augment(image, label_map, augmentation, case, copy, seed)
        preprocessing.preprocess_arrays(
            *deformed, spacing, plans, dataset, configuration, stem
        )


def preprocess_case(
    images: Sequence[str],
    label: str,
    plans: str,
    dataset: str,
    configuration: str,
    stem: str,
) -> None:
    """Crop, resample and normalise one case; see `preprocessing.preprocess_case`."""
    from casesim.nnunet import preprocessing

    preprocessing.preprocess_case(images, label, plans, dataset, configuration, stem)


def label_quality(
    checkpoint: str,
    stem: str,
    score: str,
    case: str,
    fold: int,
    options: Mapping[str, Any],
    threads: int,
    gpu: int,
) -> None:
    """Write cleanlab's label-quality score of one case by the model of its fold.

    `stem` is the preprocessed case (path without `.b2nd`), `options` are those of
    `sliding_window.predict_logits`. `score` gets `case`, `fold` and `label_quality` as
    JSON. Nothing is kept of the probabilities, which take as much space as the images.
    """
    import torch

    from casesim.evidence.label_quality import label_quality
    from casesim.inference import sliding_window
    from casesim.nnunet import checkpoints, preprocessing
    from casesim.nnunet.files import write_json
    from casesim.processes import devices

    torch.set_num_threads(threads)
    data, labels, _ = preprocessing.load_preprocessed(stem, with_seg=True)
    if labels is None:
        raise ValueError(f"{stem} was preprocessed without its label map")
    with devices.acquire(gpu) as device:
        model = checkpoints.load_model(checkpoint, device)
        logits = sliding_window.predict_logits(model, data, **options).cpu().numpy()
    quality = label_quality(labels[0], logits)
    write_json(score, {"case": case, "fold": fold, "label_quality": quality})


JOBS: dict[str, Callable[..., None]] = {
    "train": train,
    "label_quality": label_quality,
    "augment_case": augment_case,
    "preprocess_case": preprocess_case,
}

# nnU-Net looks up readers, preprocessors and networks by name, at run time.
_PREPROCESSING = (
    "casesim.nnunet.checkpoints",
    "casesim.nnunet.preprocessing",
    "nnunetv2.imageio.simpleitk_reader_writer",
    "nnunetv2.preprocessing.preprocessors.default_preprocessor",
    "nnunetv2.preprocessing.resampling.default_resampling",
    "nnunetv2.training.dataloading.nnunet_dataset",
)
_NEEDED = {
    "train": (
        "casesim.processes.resident",
        "casesim.training.run",
        "dynamic_network_architectures.architectures.unet",
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
        # What matplotlib's first picture makes pillow import.
        *(f"PIL.{kind}ImagePlugin" for kind in ("Bmp", "Gif", "Jpeg", "Png", "Ppm")),
    ),
    "label_quality": (
        "casesim.evidence.label_quality",
        "casesim.inference.sliding_window",
        "casesim.processes.resident",
        "cleanlab.segmentation.rank",
        "dynamic_network_architectures.architectures.unet",
        *_PREPROCESSING,
    ),
    "augment_case": ("casesim.training.augmentation", *_PREPROCESSING),
    "preprocess_case": _PREPROCESSING,
}


def prepare(name: str) -> None:
    """Import what a job imports, and compute nothing: no thread and no GPU is used."""
    for module in _NEEDED[name]:
        import_module(module)
