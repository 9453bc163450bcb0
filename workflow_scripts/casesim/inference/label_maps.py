"""Label maps on the grid of the original image: made from logits, written, read.

As nnU-Net's `convert_predicted_logits_to_segmentation_with_correct_shape`, but logits
leave the device as labels. Logits have the axes (class, ...) in the order of the plans;
label maps are (z, y, x) as SimpleITK gives them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from torch.nn import functional

from casesim.errors import UserError
from casesim.images import write_nifti
from casesim.inference.surface import Reference
from casesim.nnunet.files import PathLike

if TYPE_CHECKING:
    from casesim.nnunet.checkpoints import Model


def to_label_map(
    model: Model, logits: torch.Tensor, properties: Mapping[str, Any]
) -> np.ndarray:
    """Label map, uint8 (z, y, x), on the grid of the original image.

    As `convert_predicted_logits_to_segmentation_with_correct_shape`: logits (class,
    ...) are resampled to the original spacing, the label is the class of the largest
    one, and cropping and the order of axes are reverted. Of a network that was trained
    on regions, each region with a probability above one half gets its number, later
    ones over earlier ones (`convert_probabilities_to_segmentation`). `properties` are
    the preprocessed case's.
    """
    labels = to_cropped_label_map(model, logits, properties)
    whole = np.zeros(properties["shape_before_cropping"], np.uint8)
    whole = insert_crop_into_image(whole, labels, properties["bbox_used_for_cropping"])
    return whole.transpose(model.plans_manager.transpose_backward)


def to_cropped_label_map(
    model: Model, logits: torch.Tensor, properties: Mapping[str, Any]
) -> np.ndarray:
    """As `to_label_map`, but cropped, and with the axes in the order of the plans."""
    shape = properties["shape_after_cropping_and_before_resampling"]
    to = [properties["spacing"][i] for i in model.plans_manager.transpose_forward]
    return labels_of_shape(model, logits, shape, to)


def labels_of_shape(
    model: Model, logits: torch.Tensor, shape: Sequence[int], to: Sequence[float]
) -> np.ndarray:
    """Labels, uint8, of logits (class, ...) that are resampled to a shape.

    As nnU-Net's `resample_data_or_seg`: where the model's spacing or that which is
    resampled `to` (mm) is much coarser along one axis, slices across it are copied.
    """
    with torch.inference_mode():
        return _resampled_labels(model, logits, [*map(int, shape)], to).cpu().numpy()


def _resampled_labels(
    model: Model, logits: torch.Tensor, shape: list[int], to: Sequence[float]
) -> torch.Tensor:
    def choose(logits: torch.Tensor) -> torch.Tensor:
        if not model.label_manager.has_regions:
            return _largest(logits)
        return _of_regions(logits, model.label_manager.regions_class_order)

    if list(logits.shape[1:]) == shape:
        return choose(logits)
    configuration = model.configuration_manager
    to, spacing = list(to), list(configuration.spacing)
    spacing = to[: len(to) - len(spacing)] + spacing
    resample = configuration.resampling_fn_probabilities
    if not _is_linear(resample):
        resampled = resample(logits.cpu().numpy(), shape, spacing, to)
        return choose(torch.as_tensor(resampled))
    _, axis = determine_do_sep_z_and_axis(
        resample.keywords["force_separate_z"], spacing, to
    )
    if axis is None:
        return choose(functional.interpolate(logits[None], shape, mode="trilinear")[0])
    # Linear in the plane and nearest neighbour across it. The label can be chosen in
    # between, as the second step only copies slices.
    size = [n for i, n in enumerate(shape) if i != axis]
    planes = logits.movedim(axis + 1, 1)
    labels = choose(functional.interpolate(planes, size, mode="bilinear"))
    # The coordinates and the rounding of scipy.ndimage.map_coordinates.
    ratio = len(labels) / shape[axis]
    nearest = np.floor((ratio * (np.arange(shape[axis]) + 0.5) - 0.5) + 0.5)
    nearest = nearest.clip(0, len(labels) - 1).astype(np.int64)
    return labels[torch.as_tensor(nearest, device=labels.device)].movedim(0, axis)


def _is_linear(resample: Any) -> bool:
    """Whether a plans' resampling is nnU-Net's default for logits."""
    return (
        isinstance(resample, partial)
        and resample.func is resample_data_or_seg_to_shape
        and resample.keywords
        == {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    )


def _largest(logits: torch.Tensor) -> torch.Tensor:
    """Argmax over the classes as uint8; on a CPU ten times as fast as torch's."""
    largest = logits[0].clone()
    labels = torch.zeros(largest.shape, dtype=torch.uint8, device=logits.device)
    for label, here in enumerate(logits[1:], start=1):
        labels.masked_fill_(here > largest, label)
        torch.maximum(largest, here, out=largest)
    return labels


def _of_regions(logits: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
    """The number of the last region that is segmented in each voxel, as uint8."""
    labels = torch.zeros(logits.shape[1:], dtype=torch.uint8, device=logits.device)
    for here, number in zip(logits, numbers, strict=True):
        # The sigmoid is above one half where its argument is above 0.
        labels.masked_fill_(here > 0, number)
    return labels


def read_label_map(path: PathLike) -> np.ndarray:
    """Read a label map as an integer array (z, y, x); `UserError` names a bad file."""
    try:
        labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(os.fspath(path)))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"The label map {path} cannot be read ({reason}). Mend or replace the file."
        ) from None
    if labels.dtype.kind in "iu":
        return labels
    whole = labels.astype(np.int32)
    if not np.array_equal(whole, labels):
        raise UserError(
            f"The label map {path} has values that are not whole numbers. Replace it."
        )
    return whole


def read_reference(
    path: PathLike, properties: Mapping[str, Any], ignore: int | None = None
) -> Reference:
    """The label map of a preprocessed case, on the grid of its original image.

    `properties` are nnU-Net's, whose `spacing` is (z, y, x) in mm. Voxels with the
    number `ignore` are left out of all scores. Raises `UserError` for a file that
    cannot be read.
    """
    return Reference.of(read_label_map(path), properties["spacing"], ignore)


def write_label_map(
    labels: np.ndarray, properties: Mapping[str, Any], path: PathLike
) -> None:
    """Write a label map (z, y, x) as NIfTI with the geometry of the original image."""
    image = SimpleITK.GetImageFromArray(labels)
    geometry = properties["sitk_stuff"]
    image.SetSpacing(geometry["spacing"])
    image.SetOrigin(geometry["origin"])
    image.SetDirection(geometry["direction"])
    write_nifti(image, path)
