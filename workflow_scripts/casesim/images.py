"""Reading images to look at."""

import os
from typing import Any

import numpy.typing as npt


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
