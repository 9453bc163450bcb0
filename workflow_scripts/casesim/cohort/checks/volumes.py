"""Whole volumes out of image files, or what is wrong with the files.

Voxels and geometry are what SimpleITK reads, since nnU-Net reads with it: nibabel takes
a scaling of 0 and an unclear orientation for something else. Only what SimpleITK does
not notice is looked for in the bytes: a file that is cut off, or no image at all.
"""

import gzip
import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from casesim.cohort import formats
from casesim.cohort.cases import Case
from casesim.cohort.checks.report import Report
from casesim.errors import UserError


@dataclass(frozen=True)
class Volume:
    """The content of one file; axes x, y, z (and channel).

    `not_finite` counts the voxels that are NaN or infinite in the file, for each
    channel: SimpleITK reads them as 0. With more than four axes `voxels` are all 0.
    """

    path: str
    voxels: NDArray[Any]
    not_finite: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


@dataclass(frozen=True)
class Channel:
    """One 3-D channel: where it comes from, in words, and its file."""

    name: str
    place: str
    voxels: NDArray[Any]
    not_finite: int
    volume: Volume


class UnreadableError(Exception):
    """A file that cannot be read: what is wrong, and how to mend it."""


def load(path: str, report: Report) -> Volume | None:
    """The content of a file; None if it cannot be read, which is then reported."""
    try:
        return read_volume(path)
    except UnreadableError as error:
        report.error(*error.args)
        return None


def read_volume(path: str) -> Volume:
    """The content of a file, to its last byte.

    Raises:
        UnreadableError: what is wrong with the file, and how to mend it.
    """
    if not Path(path).is_file():
        what = "is a link to nowhere" if Path(path).is_symlink() else "is missing"
        raise UnreadableError(f"{path} {what}.", "Put the file there.")
    content = _unpack(path)
    if not formats.is_nifti(path):
        return _read_other(path)
    header = _header(path, content)
    shape = tuple(int(size) for size in header.get_data_shape())
    not_finite = _count_not_finite(header, content)
    del content
    if len(shape) > 4 or 0 in shape:
        # SimpleITK takes further axes for the parts of a colour.
        nothing = np.broadcast_to(np.uint8(0), shape)
        return Volume(path, nothing, (0,), *_geometry(path))
    try:
        image = sitk.ReadImage(path)
    except RuntimeError as error:
        raise _refused(path, error) from None
    # SimpleITK gives the axes in the order z, y, x.
    voxels = sitk.GetArrayViewFromImage(image).T
    return Volume(path, np.array(voxels), not_finite, *_geometry(path))


def _read_other(path: str) -> Volume:
    """A volume in another format, or a picture with its colours as channels."""
    try:
        channels = formats.read(path)
    except UserError as error:
        problem, _, mend = str(error).rpartition(". ")
        raise UnreadableError(f"{problem}.", mend) from None
    arrays = [sitk.GetArrayFromImage(channel).T for channel in channels]
    strange = [~np.isfinite(array) for array in arrays]
    counts = tuple(int(np.count_nonzero(where)) for where in strange)
    arrays = [
        np.where(where, array.dtype.type(0), array) if count else array
        for array, where, count in zip(arrays, strange, counts, strict=True)
    ]
    voxels = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=3)
    image = channels[0]
    return Volume(
        *(path, voxels, counts),
        *(image.GetSpacing(), image.GetOrigin(), image.GetDirection()),
    )


def _header(path: str, content: bytes) -> Any:
    """The header of a NIfTI file that is whole and holds numbers."""
    for header_class in (nib.Nifti1Header, nib.Nifti2Header):
        if header_class.may_contain_header(content):
            break
    else:
        packed = content.startswith(b"\x1f\x8b")
        raise UnreadableError(
            f"{path} is not a NIfTI file{' but packed (gzip)' if packed else ''}.",
            "Name it .nii.gz." if packed else "Convert it to NIfTI, or replace it.",
        )
    try:
        header: Any = header_class.from_fileobj(io.BytesIO(content), check=False)
        dtype = header.get_data_dtype()
        voxels = math.prod(int(size) for size in header.get_data_shape())
        end = int(header["vox_offset"]) + voxels * dtype.itemsize
    # nibabel raises many kinds of errors over damaged headers.
    except Exception as error:
        raise UnreadableError(
            f"{path} cannot be read: {error}", "Copy or download the file again."
        ) from None
    if dtype.kind not in "iufb":
        raise UnreadableError(
            f"{path} holds voxels of type {dtype}, not numbers.",
            "Save it as a grey-value image (colour and complex images are not used).",
        )
    if len(content) < end:
        raise UnreadableError(
            f"{path} cannot be read: it holds fewer voxels than its header says "
            f"({len(content)} bytes instead of {end}).",
            "Copy or download the file again.",
        )
    return header


def _count_not_finite(header: Any, content: bytes) -> tuple[int, ...]:
    """Of each 3-D part of the file (they lie one after the other)."""
    dtype = header.get_data_dtype()
    shape = [int(size) for size in header.get_data_shape()]
    parts = math.prod(shape[3:])
    if dtype.kind != "f" or 0 in shape:
        return (0,) * parts
    stored = np.frombuffer(content, dtype, math.prod(shape), int(header["vox_offset"]))
    finite = np.isfinite(stored).reshape(parts, -1)
    return tuple((finite.shape[1] - np.count_nonzero(finite, axis=1)).tolist())


def _unpack(path: str) -> bytes:
    """The uncompressed content. All of it: only the end shows that a file is whole."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UnreadableError(
            f"{path} cannot be opened: {error.strerror}.",
            "See to its permissions, or to the disk.",
        ) from None
    if not content:
        raise UnreadableError(
            f"{path} is empty (0 bytes).", "Copy or download the file again."
        )
    if content.startswith((b"version https://git-lfs", b"/annex/objects")):
        raise UnreadableError(
            f"{path} is a pointer to the image, not the image.",
            "Fetch the content (git lfs pull, or git annex get).",
        )
    if not path.endswith(".gz"):
        return content
    try:
        return gzip.decompress(content)
    except EOFError:
        raise UnreadableError(
            f"{path} is cut off: a truncated gzip file ({len(content)} bytes).",
            "Copy or download the file again.",
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableError(
            f"{path} is damaged, or no gzip file: {error}.",
            "Copy or download the file again (or name it .nii if it is not packed).",
        ) from None


def _geometry(path: str) -> tuple[tuple[float, ...], ...]:
    """Spacing, origin and direction in space as SimpleITK (so nnU-Net) sees them."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _refused(path, error) from None
    # A fourth axis holds channels; a missing third one is a single slice.
    size = reader.GetDimension()
    direction = np.eye(max(3, size))
    direction[:size, :size] = np.reshape(reader.GetDirection(), (size, size))
    return (
        (*reader.GetSpacing(), 1.0)[:3],
        (*reader.GetOrigin(), 0.0)[:3],
        tuple(direction[:3, :3].ravel().tolist()),
    )


def _refused(path: str, error: RuntimeError) -> UnreadableError:
    reason = str(error).strip().splitlines()[-1].removeprefix("ITK ERROR: ")
    return UnreadableError(
        f"{path} is refused by SimpleITK, which nnU-Net reads with: {reason}",
        "Save it again with a rigid, right-angled orientation: in nibabel, "
        "image.set_sform(image.get_qform()).",
    )


def find_channels(
    case: Case,
    images: Sequence[Volume | None],
    names: Sequence[str],
    report: Report,
) -> list[Channel]:
    """The 3-D channels that could be read; all of them, or what there is of them."""
    channels = []
    if case.source == "msd":
        volume = images[0]
        if volume is None:
            return []
        voxels = volume.voxels[..., None] if volume.voxels.ndim == 3 else volume.voxels
        if voxels.ndim != 4 or voxels.shape[3] != len(names):
            count = voxels.shape[3] if voxels.ndim == 4 else "no"
            report.error(
                f"Wrong channel count: {volume.path} has the shape "
                f"{volume.voxels.shape}, so {count} channels, but dataset.json names "
                f"{len(names)}: {', '.join(names)}.",
                "Put all channels into the image's fourth axis, or correct 'modality' "
                "in dataset.json.",
            )
            if voxels.ndim != 4:
                return []
        # What is there is checked all the same.
        parts = zip(names, np.moveaxis(voxels, 3, 0), volume.not_finite, strict=False)
        for name, array, not_finite in parts:
            place = f"{volume.path} (channel {name})"
            channels.append(Channel(name, place, array, not_finite, volume))
        return channels
    if any(formats.is_picture(path) for path in case.images):
        return _colours(images, names, report)
    for name, volume in zip(names, images, strict=False):
        if volume is None:
            continue
        if volume.voxels.ndim != 3:
            report.error(
                f"Wrong channel count: {volume.path} has the shape "
                f"{volume.voxels.shape}, but should be one 3-D channel ({name}).",
                "Save each channel as a 3-D file of its own.",
            )
            continue
        place = f"{volume.path} ({name})"
        channels.append(
            Channel(name, place, volume.voxels, volume.not_finite[0], volume)
        )
    return channels


def _colours(
    images: Sequence[Volume | None], names: Sequence[str], report: Report
) -> list[Channel]:
    """The channels of pictures: a file holds one, or one for each colour."""
    parts = [
        (volume, array, count)
        for volume in images
        if volume is not None
        for array, count in zip(
            np.moveaxis(volume.voxels.reshape(*volume.voxels.shape[:3], -1), 3, 0),
            volume.not_finite,
            strict=True,
        )
    ]
    if len(parts) != len(names) and None not in images:
        files = ", ".join(dict.fromkeys(volume.path for volume, _, _ in parts))
        report.error(
            f"Wrong channel count: {files} hold {len(parts)} channels (grey values "
            f"are one, colours three, with transparency four), but dataset.json names "
            f"{len(names)}: {', '.join(names)}.",
            "Correct channel_names in dataset.json, or save the pictures in as many "
            "colours.",
        )
        return []
    return [
        Channel(name, f"{volume.path} ({name})", array, count, volume)
        for name, (volume, array, count) in zip(names, parts, strict=False)
    ]
