"""Reading images and label maps, where nnU-Net is not at hand."""

import os
from typing import Any

import numpy.typing as npt

from casesim.errors import UserError


def read_axial(
    path: str | os.PathLike[str],
) -> tuple[npt.NDArray[Any], tuple[float, float, float]]:
    """Read a 3-D image with axial slices as radiologists see them (LPS).

    Returns:
        Voxels as (z, y, x), z from feet to head, y from front to back, x from the
        patient's right to left; and the spacing in the same order in mm.
    """
    import SimpleITK as sitk  # noqa: N813

    image = sitk.DICOMOrient(sitk.ReadImage(os.fspath(path)), "LPS")
    x, y, z = image.GetSpacing()
    return sitk.GetArrayFromImage(image), (z, y, x)


def read_label_map(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read a label map of the workflow's own as integers (z, y, x), as it is stored.

    Raises `UserError` naming a file that cannot be read.
    """
    import SimpleITK as sitk  # noqa: N813

    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(os.fspath(path), sitk.sitkUInt8))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"The label map {path} cannot be read ({reason}). Delete it and run the "
            "workflow again."
        ) from None
