"""One cell of the matrix: one model on one case, its label map and its score."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from casesim.errors import UserError
from casesim.files import atomic_path
from casesim.inference import cascade, overlap
from casesim.inference.label_maps import (
    read_reference,
    to_label_map,
    write_label_map,
)
from casesim.inference.sliding_window import predict_logits
from casesim.inference.surface import Reference
from casesim.nnunet.files import PathLike

if TYPE_CHECKING:
    from casesim.nnunet.checkpoints import Model


def run_cell(
    model: Model,
    data: np.ndarray | torch.Tensor,
    properties: Mapping[str, Any],
    label_path: PathLike,
    prediction_path: PathLike,
    score_path: PathLike,
    model_name: str,
    case: str,
    labels: Mapping[str, int | Sequence[int]],
    regions: Mapping[str, Sequence[int]],
    options: Mapping[str, Any],
    reference: Reference | None = None,
    first: cascade.Preprocessed | None = None,
) -> dict[str, float]:
    """Segment one case with one model, write label map and score; seconds by step.

    `data` and `properties` are those of the preprocessed case, `labels` and `regions`
    as in `overlap.score_record`, `options` may hold `mirroring`, `tile_step`,
    `batch_size` and `bfloat16` of `predict_logits`. `reference` is the content of
    `label_path` (`read_reference`), if it has been read before; what it ignores is what
    the network was trained to ignore. `first` is the case as it is preprocessed for a
    cascade's first stage. The score is written last: a score file means that the cell
    is complete.

    Returns the seconds of `network` (of a cascade, both), `resample` (to the original
    grid), `write` and `score` (reading the reference included, writing the score file
    not). Raises `UserError` for a reference that cannot be read or has another shape.
    """
    device = next(model.network.parameters()).device
    clock = _Clock(device)
    shown = cascade.input_of(model, data, properties, first, options)
    logits = predict_logits(model, shown, **options)
    clock.lap("network")
    prediction = to_label_map(model, logits, properties)
    clock.lap("resample")
    write_label_map(prediction, properties, prediction_path)
    clock.lap("write")
    if reference is None:
        reference = read_reference(
            label_path, properties, model.label_manager.ignore_label
        )
    shape = reference.labels.shape
    if shape != prediction.shape:
        raise UserError(
            f"The label map {label_path} has shape {shape} (z, y, x), the image of "
            f"case {case} {prediction.shape}. They must lie on the same grid."
        )
    record = overlap.score_record(
        model_name, case, prediction, reference, labels, regions
    )
    clock.lap("score")
    record |= {"seconds": clock.seconds, "device": _device_name(device)}
    with atomic_path(score_path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return clock.seconds


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


class _Clock:
    """Seconds between calls of `lap`, by name."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now
