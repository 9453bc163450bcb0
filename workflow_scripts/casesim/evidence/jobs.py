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
