"""Preprocessed cases in nnU-Net's format: made from images, and read again.

Arrays are (channel, z, y, x) as SimpleITK gives them, spacings (z, y, x) in mm, until
nnU-Net's preprocessing puts the axes in the order of the plans. nnU-Net and blosc2 are
imported inside the functions, for the reason given in `planning`.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casesim.errors import UserError
from casesim.files import atomic_path, room_for, sync
from casesim.nnunet.files import PathLike, damaged, read_json
from casesim.nnunet.planning import load_plans

if TYPE_CHECKING:
    import numpy as np
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager


def read_case(
    images: Sequence[PathLike], label: PathLike
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Read a raw case with nnU-Net's reader.

    Returns the image as float32 (channel, z, y, x), the label as int16 (z, y, x) and
    the spacing (z, y, x) in mm.
    """
    import numpy as np
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    reader = SimpleITKIO()
    data, properties = reader.read_images([os.fspath(image) for image in images])
    seg, _ = reader.read_seg(os.fspath(label))
    spacing = [float(value) for value in properties["spacing"]]
    return data, seg[0].astype(np.int16), spacing


def preprocess_case(
    images: Sequence[PathLike],
    label: PathLike | None,
    plans: PathLike,
    dataset: PathLike,
    configuration: str,
    stem: PathLike,
) -> None:
    """Crop, normalise and resample one case with nnU-Net's preprocessor of the plans.

    Without a label (a new case) the stored segmentation is 0 inside the brain and -1
    outside, and the properties name no places of classes: for prediction only.

    Writes `stem`.b2nd, `stem`_seg.b2nd and `stem`.pkl as
    `DefaultPreprocessor.run_case_save` does, but for ignored voxels (see
    `_without_ignored_background`). `images` has one file for each channel, in order.
    """
    plans_manager, configuration_manager = load_plans(plans, configuration)
    preprocessor = configuration_manager.preprocessor_class(verbose=False)
    dataset_json = read_json(dataset)
    ignore = plans_manager.get_label_manager(dataset_json).ignore_label
    files = [os.fspath(image) for image in images]
    if label is None or ignore is None:
        data, seg, properties = preprocessor.run_case(
            files,
            os.fspath(label) if label else None,
            plans_manager,
            configuration_manager,
            dataset_json,
        )
    else:
        reader = plans_manager.image_reader_writer_class()
        image, properties = reader.read_images(files)
        labels, _ = reader.read_seg(os.fspath(label))
        data, seg, properties = preprocessor.run_case_npy(
            image,
            _without_ignored_background(image, labels, ignore),
            properties,
            plans_manager,
            configuration_manager,
            dataset_json,
        )
    _save_preprocessed(data, seg, properties, configuration_manager, stem)


def preprocess_arrays(
    data: np.ndarray,
    label: np.ndarray,
    spacing: Sequence[float],
    plans: PathLike,
    dataset: PathLike,
    configuration: str,
    stem: PathLike,
) -> None:
    """As `preprocess_case`, for an image in memory: no detour through NIfTI files.

    `data` is (channel, z, y, x), `label` (z, y, x), `spacing` (z, y, x) in mm. The
    stored properties lack the geometry of an image file, so that the case serves for
    training only.
    """
    import numpy as np

    plans_manager, configuration_manager = load_plans(plans, configuration)
    preprocessor = configuration_manager.preprocessor_class(verbose=False)
    dataset_json = read_json(dataset)
    labels = label[None].astype(np.float32)  # the type that nnU-Net's readers give
    ignore = plans_manager.get_label_manager(dataset_json).ignore_label
    if ignore is not None:
        labels = _without_ignored_background(data, labels, ignore)
    data, seg, properties = preprocessor.run_case_npy(
        data,
        labels,
        {"spacing": [float(value) for value in spacing]},
        plans_manager,
        configuration_manager,
        dataset_json,
    )
    _save_preprocessed(data, seg, properties, configuration_manager, stem)


def _without_ignored_background(
    data: np.ndarray, labels: np.ndarray, ignore: int
) -> np.ndarray:
    """A label map (1, z, y, x) in which background outside of the image is not ignored.

    nnU-Net normalises within what is not 0 in the image or is labelled there. A label
    map that ignores whole slices would make their empty corners part of that, and the
    same image would look different to a network with its label map and without it:
    predictions would not be those of `nnUNetv2_predict`. `data` is (channel, z, y, x).
    """
    import numpy as np
    from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask

    outside = ~create_nonzero_mask(data)[None]
    return np.where(outside & (labels == ignore), labels.dtype.type(0), labels)


def _save_preprocessed(
    data: np.ndarray,
    seg: np.ndarray,
    properties: dict[str, Any],
    configuration_manager: ConfigurationManager,
    stem: PathLike,
) -> None:
    import numpy as np
    from nnunetv2.training.dataloading.nnunet_dataset import (
        comp_blosc2_params,
        nnUNetDatasetBlosc2,
    )

    data = data.astype(np.float32, copy=False)
    seg = seg.astype(np.int16, copy=False)
    patch_size = tuple(configuration_manager.patch_size)
    blocks, chunks = comp_blosc2_params(data.shape, patch_size, data.itemsize)
    blocks_seg, chunks_seg = comp_blosc2_params(seg.shape, patch_size, seg.itemsize)
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    with (
        _blosc2_in_words(Path(f"{stem}.b2nd")),
        tempfile.TemporaryDirectory(prefix=".tmp-", dir=stem.parent) as folder,
    ):
        temporary = Path(folder, "case")
        nnUNetDatasetBlosc2.save_case(
            data,
            seg,
            properties,
            str(temporary),
            chunks=chunks,
            blocks=blocks,
            chunks_seg=chunks_seg,
            blocks_seg=blocks_seg,
        )
        # Last the one that later jobs wait for, when a power cut cannot take away the
        # names of the others any more.
        for suffix in ("_seg.b2nd", ".pkl", ".b2nd"):
            written = Path(f"{temporary}{suffix}")
            sync(written)
            if suffix == ".b2nd":
                sync(stem.parent)
            written.replace(f"{stem}{suffix}")


@contextmanager
def _blosc2_in_words(path: Path) -> Iterator[None]:
    """Of a full disk blosc2 says "Error while creating the NDArray", and no more."""
    with room_for(path):
        try:
            yield
        except RuntimeError as error:
            raise UserError(
                f"{path} cannot be written ({error}). The disk may be full: make room, "
                "then start the same command again."
            ) from None


def write_label_map(labels: np.ndarray, path: PathLike) -> None:
    """Write a label map (a, b, c) that a cascade's second stage takes, compressed.

    In nnU-Net's format, chunks aside (`nnUNetDatasetBlosc2.save_seg`); atomically.
    """
    import blosc2

    with _blosc2_in_words(Path(path)), atomic_path(path) as temporary:
        blosc2.asarray(labels, urlpath=str(temporary), mode="w")


def open_label_map(path: PathLike) -> Any:
    """Open what `write_label_map` wrote; as `open_preprocessed`."""
    return _open(os.fspath(path))


def is_label_map(path: PathLike, shape: Sequence[int]) -> bool:
    """Whether `path` is a whole label map of this shape."""
    try:
        return tuple(open_label_map(path).shape) == tuple(shape)
    except UserError:
        return False


def open_preprocessed(stem: PathLike) -> tuple[Any, Any]:
    """Open data and segmentation of a preprocessed case without reading them (blosc2).

    Both have `shape` and `dtype` and are read by slicing, also in part.
    """
    return _open(f"{stem}.b2nd"), _open(f"{stem}_seg.b2nd")


def load_preprocessed(
    stem: PathLike, with_seg: bool = False
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """Read a preprocessed case: data, segmentation, properties.

    `stem` is the path without `.b2nd`. The data are float32 (channel, ...) and the
    segmentation int16 (1, ...) with -1 outside the brain, both with the axes in the
    order of the plans; the segmentation is None unless asked for. Raises `UserError`
    naming the file that is missing or damaged.
    """
    data = _read(f"{stem}.b2nd")
    seg = _read(f"{stem}_seg.b2nd") if with_seg else None
    return data, seg, load_properties(stem)


def load_properties(stem: PathLike) -> dict[str, Any]:
    """What nnU-Net's preprocessing noted about a case: crop, spacing, class
    locations."""
    path = Path(f"{os.fspath(stem)}.pkl")
    try:
        return pickle.loads(path.read_bytes())
    except Exception as error:  # a damaged pickle can raise anything
        raise damaged(path, error) from None


def _open(path: str) -> Any:
    import blosc2

    try:
        # Mapped, as in nnU-Net's data set, for many small reads. Not on Windows
        # (#2723).
        mapped = {} if os.name == "nt" else {"mmap_mode": "r"}
        return blosc2.open(path, mode="r", dparams={"nthreads": 1}, **mapped)
    except Exception as error:  # blosc2 raises what its C library happens to meet
        raise damaged(path, error) from None


def _read(path: str) -> np.ndarray:
    array = _open(path)
    try:
        return array[:]
    except Exception as error:  # as above, for damage further on in the file
        raise damaged(path, error) from None
