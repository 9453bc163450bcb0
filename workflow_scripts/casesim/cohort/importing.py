"""A case in nnU-Net's raw format, without altering a voxel.

What a voxel is, is what SimpleITK reads, since nnU-Net reads with it; nibabel takes
files apart and writes headers as they were.
"""

import gzip
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from casesim.cohort import formats
from casesim.cohort.cases import Case
from casesim.cohort.spoil import Spoilt, spoil
from casesim.errors import UserError
from casesim.files import atomic_path
from casesim.images import write_nifti


def import_case(
    case: Case,
    label_map: Mapping[int, int],
    images_out: Sequence[str | os.PathLike[str]],
    label_out: str | os.PathLike[str] | None,
    phantom_config: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> None:
    """Write one case in nnU-Net's raw format: a .nii.gz for each channel, and labels.

    A new case has no label map, so `label_out` is None.

    Voxels, their type and scaling, and the geometry in the header stay as they are:
    3-D files are copied byte by byte, 4-D files are split by channel, and what is no
    NIfTI (`formats`) is written with the same voxels. Label maps become uint8 with the
    numbers of `label_map` where these differ from the file's, or where the file does
    not hold plain integers. A phantom is generated from its config and `seed`. The
    label map of a case that is spoilt on purpose is spoilt last. Raises
    UserError for a file that cannot be read or does not hold the case.
    """
    if case.source == "phantom":
        assert phantom_config is not None
        _write_phantom(case, phantom_config, seed, images_out, label_out)
        _spoil(case, label_map, seed, images_out, label_out)
        return
    if not formats.is_nifti(case.images[0]):
        formats.write_channels(case.images, images_out)
    elif len(case.images) == 1 and case.source == "msd":
        _split_channels(case.images[0], images_out)
    elif len(case.images) == len(images_out):
        for source, target in zip(case.images, images_out, strict=True):
            _copy(source, target)
    else:
        raise UserError(
            f"{case.id} has {len(case.images)} channel files instead of "
            f"{len(images_out)}."
        )
    if label_out is not None:
        assert case.label is not None
        write_label(case.label, label_out, label_map)
        _spoil(case, label_map, seed, images_out, label_out)


def _spoil(
    case: Case,
    label_map: Mapping[int, int],
    seed: int,
    images: Sequence[str | os.PathLike[str]],
    label: str | os.PathLike[str] | None,
) -> None:
    """Spoil the imported label map, if the case is one that is spoilt on purpose."""
    import numpy as np
    import SimpleITK as sitk  # noqa: N813

    if not case.spoilt or label is None:
        return

    def read(path: str | os.PathLike[str]) -> np.ndarray:
        return sitk.GetArrayFromImage(sitk.ReadImage(os.fspath(path)))

    other = None
    if case.other_label:
        # Written first: that is what gives it the numbers of this data set.
        with TemporaryDirectory() as folder:
            write_label(case.other_label, f"{folder}/other.nii.gz", label_map)
            other = read(f"{folder}/other.nii.gz")
    image = sitk.ReadImage(os.fspath(label))
    x, y, z = image.GetSpacing()
    changed = sitk.GetImageFromArray(
        spoil(
            sitk.GetArrayFromImage(image),
            Spoilt.from_text(case.spoilt),
            case.id,
            seed,
            (z, y, x),
            np.any([read(path) != 0 for path in images], axis=0),
            other,
        )
    )
    changed.CopyInformation(image)
    write_nifti(changed, label)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Tell the user which file could not be read."""
    import zlib

    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        yield
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        zlib.error,
        ImageFileError,
        HeaderDataError,
    ) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Replace the file."
        ) from error


def _copy(source: str, target: str | os.PathLike[str]) -> None:
    with _reading(source):
        content = Path(source).read_bytes()
    if not source.endswith(".gz"):
        # Without a time in its header the packed file depends on the content alone.
        content = gzip.compress(content, 6, mtime=0)
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def _split_channels(source: str, targets: Sequence[str | os.PathLike[str]]) -> None:
    """A 3-D file for each volume of a 4-D one (x, y, z, channel): the same voxels."""
    import nibabel as nib

    with _reading(source):
        image: Any = nib.load(source)
        stored = image.dataobj.get_unscaled()
        slope, intercept = _scaling(source)
    if stored.ndim == 3:
        stored = stored[..., None]
    if stored.ndim != 4 or stored.shape[3] != len(targets):
        raise UserError(
            f"{source} has the shape {stored.shape}, which is not that of "
            f"{len(targets)} channels."
        )
    for channel, target in enumerate(targets):
        volume = type(image)(stored[..., channel], image.affine, image.header)
        if (slope, intercept) != (1, 0):
            # nibabel then writes the values unchanged, beside their scaling.
            volume.header.set_slope_inter(slope, intercept)
        with atomic_path(target) as temporary:
            nib.save(volume, temporary)


def write_label(
    source: str, target: str | os.PathLike[str], label_map: Mapping[int, int]
) -> None:
    """Write a label map with the numbers that `label_map` gives those of its file.

    Raises:
        UserError: a file that cannot be read, or a number that no label has.
    """
    import nibabel as nib
    import numpy as np
    import SimpleITK as sitk  # noqa: N813

    if not formats.is_nifti(source):
        _write_other_label(source, target, label_map)
        return
    with _reading(source):
        image: Any = nib.load(source)
        stored_as = image.get_data_dtype()
        plain = stored_as.kind in "ui" and _scaling(source) == (1, 0)
    if plain and all(native == ours for native, ours in label_map.items()):
        _copy(source, target)
        return
    with _reading(source):
        # In 32 bits, as nnU-Net's reader gives them; x, y, z.
        volume = sitk.GetArrayFromImage(sitk.ReadImage(source)).T
        native_values = volume.astype(np.float32)
    labels = _mapped(source, native_values, label_map)
    header = image.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    with atomic_path(target) as temporary:
        nib.save(type(image)(labels, image.affine, header), temporary)


def _write_other_label(
    source: str, target: str | os.PathLike[str], label_map: Mapping[int, int]
) -> None:
    """A label map that is no NIfTI."""
    import SimpleITK as sitk  # noqa: N813

    channels = formats.read(source)
    if len(channels) != 1:
        raise UserError(
            f"{source} is in {len(channels)} colours. A label map holds one number for "
            "each pixel: save it in grey values, without a palette."
        )
    labels = _mapped(source, sitk.GetArrayFromImage(channels[0]), label_map)
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(channels[0])
    write_nifti(image, target)


def _mapped(source: str, native_values: Any, label_map: Mapping[int, int]) -> Any:
    """A label map in the cohort's numbers, as uint8."""
    import numpy as np

    from casesim.cohort.numbers import shown

    labels = np.zeros(native_values.shape, np.uint8)
    known = np.zeros(native_values.shape, bool)
    for native, ours in label_map.items():
        where = native_values == native
        labels[where] = ours
        known |= where
    if not known.all():
        strange = [shown(value) for value in np.unique(native_values[~known])[:10]]
        raise UserError(
            f"{source} holds the values [{', '.join(strange)}], which no label has "
            f"({', '.join(map(str, label_map))})."
        )
    return labels


def _scaling(source: str) -> tuple[float, float]:
    """Slope and intercept of a file as SimpleITK takes them: a slope of 0 for 1."""
    import nibabel as nib
    from nibabel.openers import Opener

    image: Any = nib.load(source)
    with Opener(source) as file:
        header = type(image.header).from_fileobj(file, check=False)
    slope, intercept = (float(header[key]) for key in ("scl_slope", "scl_inter"))
    return (
        slope if math.isfinite(slope) and slope != 0 else 1.0,
        intercept if math.isfinite(intercept) else 0.0,
    )


def _write_phantom(
    case: Case,
    config: Mapping[str, Any],
    seed: int,
    images_out: Sequence[str | os.PathLike[str]],
    label_out: str | os.PathLike[str] | None,
) -> None:
    import SimpleITK as sitk  # noqa: N813

    from casesim.cohort.phantom import patient

    made = patient.generate(case.id, config, case.planted, seed)
    targets = dict(zip(images_out, made.image, strict=True))
    if label_out is not None:
        targets[label_out] = made.label
    for target, array in targets.items():
        image = sitk.GetImageFromArray(array)
        # SimpleITK counts axes as x, y, z; the arrays and the config as z, y, x.
        image.SetSpacing([float(mm) for mm in reversed(made.spacing)])
        write_nifti(image, target)
