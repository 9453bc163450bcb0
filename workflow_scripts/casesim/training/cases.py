"""Preprocessed cases as nnU-Net's loader wants them, from any folder."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from casesim.nnunet import preprocessing
from casesim.nnunet.files import PathLike


class Cases(nnUNetBaseDataset):
    """Preprocessed cases from any folder, held in memory when they fit.

    nnU-Net's own data set wants all cases in one folder, and opens the files of a case
    each time a sample of it is drawn. Identifiers are file names, sorted, so that the
    order of `stems` (paths without `.b2nd`) does not matter. Of a cascade's second
    stage (`in_cascade`), the first one's label maps are added later (`add_previous`).
    """

    def __init__(
        self, stems: Sequence[PathLike], memory_mb: float, in_cascade: bool = False
    ) -> None:
        # Without the parent's constructor, which lists a folder.
        self._stems = {Path(stem).name: Path(stem) for stem in stems}
        if len(self._stems) != len(stems):
            raise ValueError("two cases have the same file name")
        self.identifiers = sorted(self._stems)
        self._properties = {
            name: preprocessing.load_properties(stem)
            for name, stem in self._stems.items()
        }
        self.nbytes = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        for name, stem in self._stems.items():
            arrays = preprocessing.open_preprocessed(stem)
            self.shapes[name] = tuple(arrays[0].shape[1:])
            for array in arrays:
                self.nbytes += math.prod(array.shape) * array.dtype.itemsize
        if in_cascade:
            self.nbytes += sum(map(math.prod, self.shapes.values()))
        self._arrays: dict[str, tuple[Any, Any]] = {}
        self._previous: dict[str, Path] = {}
        self._previous_arrays: dict[str, Any] = {}
        self.in_memory = self.nbytes <= memory_mb * 1e6
        if self.in_memory:
            for name, stem in self._stems.items():
                data, seg, _ = preprocessing.load_preprocessed(stem, with_seg=True)
                self._arrays[name] = (data, seg)

    def add_previous(self, paths: Mapping[str, Path]) -> None:
        """Take the first stage's label map of each case, by its identifier."""
        self._previous = dict(paths)
        if self.in_memory:
            self._previous_arrays = {
                name: preprocessing.open_label_map(path)[:]
                for name, path in paths.items()
            }

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Data (channel, ...), segmentation (1, ...), that of the previous stage (...)
        or None, properties."""
        data, seg = self._arrays.get(identifier) or preprocessing.open_preprocessed(
            self._stems[identifier]
        )
        previous = self._previous_arrays.get(identifier)
        if previous is None and identifier in self._previous:
            previous = preprocessing.open_label_map(self._previous[identifier])
        return data, seg, previous, self._properties[identifier]

    @staticmethod
    def save_case(*_: Any) -> None:
        raise NotImplementedError("preprocessed cases are written by casesim.nnunet")

    @staticmethod
    def get_identifiers(folder: str) -> list[str]:
        raise NotImplementedError("the cases are given, not found in a folder")

    def digest(self) -> str:
        """SHA-256 over the names and files of all cases."""
        total = hashlib.sha256()
        for name in self.identifiers:
            for suffix in (".b2nd", "_seg.b2nd", ".pkl"):
                with Path(f"{self._stems[name]}{suffix}").open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                total.update(f"{name}{suffix} {content}\n".encode())
        return total.hexdigest()
