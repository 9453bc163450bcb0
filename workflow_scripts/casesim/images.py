"""Reading images and label maps where nnU-Net is not at hand; writing them whole."""

import errno
import math
import os
from pathlib import Path
from typing import Any

import numpy.typing as npt

from casesim.errors import UserError
from casesim.files import atomic_path


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


def count_voxels(path: str | os.PathLike[str]) -> int:
    """How many voxels an image has, of all its channels, by its header alone.

    Raises `RuntimeError` for a file that SimpleITK does not know.
    """
    import SimpleITK as sitk  # noqa: N813

    header = sitk.ImageFileReader()
    header.SetFileName(os.fspath(path))
    header.ReadImageInformation()
    return math.prod(header.GetSize()) * header.GetNumberOfComponents()


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


def write_nifti(image: Any, path: str | os.PathLike[str]) -> None:
    """Write a SimpleITK image as .nii.gz, atomically and whole.

    Raises `UserError` where the disk is full: SimpleITK 2.5 writes what there is
    room for, and says nothing.
    """
    import SimpleITK as sitk  # noqa: N813

    with atomic_path(path) as temporary:
        sitk.WriteImage(image, os.fspath(temporary), True)
        voxels = image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel()
        expected = _NIFTI_HEADER_BYTES + voxels * image.GetSizeOfPixelComponent()
        # The last four bytes of a gzip file tell how much it holds.
        told = int.from_bytes(_last_bytes(temporary, 4), "little")
        if told != expected % 2**32:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))


_NIFTI_HEADER_BYTES = 352


def _last_bytes(path: Path, number: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - number))
        return file.read()
