"""File formats beside NIfTI that nnU-Net reads: other volumes, and pictures.

Both are read with SimpleITK. For volumes that is what nnU-Net does (`SimpleITKIO`); for
pictures it gives the values that `NaturalImage2DIO` gets from scikit-image (tested).
Imported, they are NIfTI: what follows knows one format. A picture becomes a volume of
one slice, 999 mm thick with pixels of 1 mm, as in nnU-Net, and a volume for each
colour.

Only the standard library is imported with this module.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casesim.errors import UserError

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813

NIFTI = (".nii.gz", ".nii")
VOLUMES = (".nrrd", ".mha")
PICTURES = (".png", ".tif")
ENDINGS = (*NIFTI, *VOLUMES, *PICTURES)

_SLICE_MM = 999.0


def is_nifti(path: str | os.PathLike[str]) -> bool:
    """Whether a file is NIfTI, by its name."""
    return os.fspath(path).endswith(NIFTI)


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a picture in two dimensions, by its name."""
    return os.fspath(path).endswith(PICTURES)


def read(path: str | os.PathLike[str]) -> list[sitk.Image]:
    """A 3-D image for each channel that a volume or a picture holds.

    Raises:
        UserError: the file cannot be read, or is no volume or picture of numbers.
    """
    import SimpleITK as sitk  # noqa: N813

    try:
        image = sitk.ReadImage(os.fspath(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("ITK ERROR: ")
        raise UserError(
            f"{path} cannot be read ({reason}). Copy or download the file again."
        ) from None
    voxels = sitk.GetArrayFromImage(image)
    if voxels.dtype.kind not in "iuf":
        raise UserError(
            f"{path} holds values of type {voxels.dtype}, not numbers. Save it as a "
            "grey-value image."
        )
    if is_picture(path):
        return [_slice(colour) for colour in _colours(path, image, voxels)]
    if image.GetNumberOfComponentsPerPixel() != 1 or voxels.ndim != 3:
        raise UserError(
            f"{path} has the shape {voxels.shape} instead of three axes. Save each "
            "channel as a 3-D file of its own."
        )
    return [image]


def _colours(path: str | os.PathLike[str], image: sitk.Image, pixels: Any) -> list[Any]:
    """The colours of a picture, each (y, x)."""
    if image.GetDimension() != 2:
        raise UserError(
            f"{path} holds {len(pixels)} pictures: a volume in TIFF is not read. "
            "Convert it to NIfTI, with the size of its voxels."
        )
    if pixels.ndim == 2:
        return [pixels]
    return [pixels[..., i] for i in range(pixels.shape[-1])]


def _slice(pixels: Any) -> sitk.Image:
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(pixels[None])
    image.SetSpacing((1.0, 1.0, _SLICE_MM))
    return image


def write_channels(
    sources: Sequence[str], targets: Sequence[str | os.PathLike[str]]
) -> None:
    """Write the channels of a case, in other formats, as a NIfTI file each.

    Raises:
        UserError: a file that cannot be read, or another number of channels.
    """
    from casesim.images import write_nifti

    channels = [channel for source in sources for channel in read(source)]
    if len(channels) != len(targets):
        names = ", ".join(Path(source).name for source in sources)
        raise UserError(
            f"{names} hold {len(channels)} channels instead of {len(targets)}."
        )
    for channel, target in zip(channels, targets, strict=True):
        write_nifti(channel, target)
