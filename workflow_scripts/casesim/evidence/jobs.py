"""The jobs of this room that the warm process can do; see `casesim.processes.jobs`."""

from collections.abc import Mapping
from typing import Any

from casesim.nnunet.jobs import PREPROCESSING

IMPORTS = {
    "label_quality": (
        "casesim.evidence.label_quality",
        "casesim.inference.sliding_window",
        "casesim.processes.devices",
        "cleanlab.segmentation.rank",
        "dynamic_network_architectures.architectures.unet",
        *PREPROCESSING,
    ),
}


def label_quality(
    checkpoint: str,
    stem: str,
    score: str,
    case: str,
    fold: int,
    foreground: Mapping[str, int],
    options: Mapping[str, Any],
    threads: int,
    gpu: int,
) -> None:
    """Write cleanlab's label-quality score of one case by the model of its fold, and
    the counts of a cell (`overlap.score_record`) of the same model.

    `stem` is the preprocessed case (path without `.b2nd`), `options` are those of
    `sliding_window.predict_logits`, `foreground` the numbers of the labels by name.
    `score` gets `fold`, `label_quality` and the counts as JSON, on the grid of the
    preprocessed case. Nothing is kept of the probabilities, which take as much space as
    the images.
    """
    import numpy as np
    import torch

    from casesim.evidence.label_quality import label_quality
    from casesim.inference import cascade, overlap, sliding_window
    from casesim.inference.keeping import LoadedCase
    from casesim.inference.surface import Reference
    from casesim.nnunet import checkpoints, preprocessing, stages
    from casesim.nnunet.files import write_json
    from casesim.processes import devices, places

    data, labels, properties = preprocessing.load_preprocessed(stem, with_seg=True)
    if labels is None:
        raise ValueError(f"{stem} was preprocessed without its label map")
    with devices.acquire(gpu) as device:
        torch.set_num_threads(places.threads_on(device, threads))
        model = checkpoints.load_model(checkpoint, device)
        first = None
        if configuration := stages.first_stage(model.configuration):
            coarse = stages.beside(stem, configuration)
            image, _, of_image = preprocessing.load_preprocessed(coarse)
            first = LoadedCase(image, of_image, None)
        shown = cascade.input_of(model, data, properties, first, options)
        logits = sliding_window.predict_logits(model, shown, **options).cpu().numpy()
    quality = label_quality(labels[0], logits)
    forward = model.plans_manager.transpose_forward
    spacing = [float(properties["spacing"][axis]) for axis in forward]
    # A 2d plan has no spacing across the slices: they keep their own.
    planned = [float(width) for width in model.configuration_manager.spacing]
    spacing[len(spacing) - len(planned) :] = planned
    record = overlap.score_record(
        f"folds/{fold}",
        case,
        logits.argmax(axis=0),
        Reference.of(np.maximum(labels[0], 0), spacing),
        foreground,
        {},
    )
    write_json(score, {**record, "fold": fold, "label_quality": quality})
