"""A cascade's second stage: what it is shown of the first one's label map.

The network of `3d_cascade_fullres` takes the image at its own spacing and, as further
channels, a mask of each label that the first stage has segmented at a coarser one.
Label maps that come from `nnUNetv2_predict` go the way of `-prev_stage_predictions`
(`input_of`); those that a second stage is trained on are resampled from logits, as
nnU-Net's training does after the first stage (`predict_next_stage`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import (
    convert_labelmap_to_one_hot,
)

from casesim.inference.label_maps import labels_of_shape, to_cropped_label_map
from casesim.inference.sliding_window import predict_logits

if TYPE_CHECKING:
    from casesim.nnunet.checkpoints import Model


class Preprocessed(Protocol):
    """A preprocessed case: float32 (channel, a, b, c), and nnU-Net's properties."""

    @property
    def data(self) -> np.ndarray: ...

    @property
    def properties(self) -> Mapping[str, Any]: ...


def input_of(
    model: Model,
    data: np.ndarray | torch.Tensor,
    properties: Mapping[str, Any],
    first: Preprocessed | None,
    options: Mapping[str, Any],
) -> np.ndarray | torch.Tensor:
    """What a model's network takes of a case, float32 (channel, a, b, c).

    The case's own data or, for a cascade, these and a mask of each label in the first
    stage's label map on the original grid, as `nnUNetv2_predict
    -prev_stage_predictions` makes them (`DefaultPreprocessor.run_case`): cropped as the
    image is, and resampled as label maps are. Two things differ by little: nnU-Net
    normalises the image within the brain and what the first stage segmented outside of
    it, here, as for all models, within the brain and what is labelled; and it resamples
    the background outside of the brain as a label of its own.

    `data` and `properties` are those of the preprocessed case, `first` is the case as
    it is preprocessed for the first stage, `options` are those of `predict_logits`.
    """
    if model.first_stage is None:
        return data
    assert first is not None, "a cascade needs the case at its first stage's spacing"
    logits = predict_logits(model.first_stage, first.data, **options)
    labels = to_cropped_label_map(model.first_stage, logits, first.properties)
    original = properties["spacing"]
    resampled = model.configuration_manager.resampling_fn_seg(
        labels[None],
        tuple(data.shape[1:]),
        [original[i] for i in model.plans_manager.transpose_forward],
        model.configuration_manager.spacing,
    )[0]
    numbers = model.label_manager.foreground_labels
    masks = convert_labelmap_to_one_hot(resampled, numbers, np.float32)
    return np.concatenate([np.asarray(data), masks])


def predict_next_stage(
    model: Model, data: np.ndarray | torch.Tensor, shape: Sequence[int]
) -> np.ndarray:
    """The label map that a second stage is trained on, uint8, of the shape of its case.

    As nnU-Net's training of the first stage writes it at its end (`resample_and_save`,
    called by `nnUNetTrainer.perform_actual_validation`), with the same settings.
    `model` is the first stage, `data` the case as preprocessed for it.
    """
    # nnU-Net takes the first stage's spacing for both, here.
    spacing = model.configuration_manager.spacing
    return labels_of_shape(model, predict_logits(model, data), shape, spacing)
