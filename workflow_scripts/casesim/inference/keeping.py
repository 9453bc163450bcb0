"""Models and cases that stay loaded on one device between the jobs that need them."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casesim.errors import UserError
from casesim.inference.loading import Cache
from casesim.nnunet import stages
from casesim.processes import places

if TYPE_CHECKING:
    import numpy as np

    from casesim.inference.surface import Reference
    from casesim.nnunet import checkpoints

# Of the memory that is available when a process starts: the network, the tiles and the
# rest of the workflow need the most of it.
_CACHED_SHARE = 0.25


@dataclass(frozen=True)
class LoadedCase:
    """A preprocessed case, and its reference label map on the original grid if there
    is one and it was asked for."""

    data: np.ndarray
    properties: dict[str, Any]
    reference: Reference | None


class Keeper:
    """Loads models and cases in the background, and keeps what was used last.

    Attributes:
        device: the `torch.device` of the models.
    """

    def __init__(self, device: str) -> None:
        import blosc2
        import torch

        from casesim.inference import compiled_network, label_maps
        from casesim.nnunet import checkpoints, preprocessing
        from casesim.processes import card_memory

        self._blosc2 = blosc2
        self._torch = torch
        self._checkpoints = checkpoints
        self._compiled_network = compiled_network
        self._label_maps = label_maps
        self._preprocessing = preprocessing
        self.device = torch.device(device)
        loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        memory = int(_CACHED_SHARE * places.available_memory())
        on_device = memory
        if self.device.type == "cuda":
            on_device = int(_CACHED_SHARE * card_memory.available(self.device))
        else:
            # There is a predictor on each core.
            memory = on_device = int(memory * places.share_of_memory())
        self._models = Cache(self._load_model, on_device, loader)
        self._cases = Cache(self._load_case, memory, loader)

    def _load_model(self, checkpoint: Path) -> tuple[checkpoints.Model, int]:
        model = self._checkpoints.load_model(checkpoint, self.device)
        return model, sum(
            tensor.nbytes
            for network in model.networks
            for tensor in network.state_dict().values()
        )

    def _load_case(
        self, data: Path, *label: Path, ignore: int | None
    ) -> tuple[LoadedCase, int]:
        array, _, properties = self._preprocessing.load_preprocessed(
            data.with_suffix("")
        )
        reference = None
        if label:
            reference = self._label_maps.read_reference(label[0], properties, ignore)
        size = array.nbytes + (0 if reference is None else reference.nbytes)
        return LoadedCase(array, properties, reference), size

    def model(self, checkpoint: Path) -> Future[Any]:
        """The model (`checkpoints.Model`) and its size, being loaded if need be.

        Raises `UserError` naming a file that is missing; the future, one that is
        damaged.
        """
        folder = checkpoint.parent.parent
        plans = tuple(folder / name for name in ("plans.json", "dataset.json"))
        return self._models.fetch(checkpoint, also=plans)

    def case(
        self, data: Path, label: Path | None, ignore: int | None = None
    ) -> Future[Any]:
        """The `LoadedCase` of a preprocessed case (.b2nd) and its size, likewise.

        `ignore` is the number of voxels in the label map that count nowhere.
        """
        files = [data] if label is None else [data, label]
        properties = data.with_suffix(".pkl")
        return self._cases.fetch(*files, also=(properties,), ignore=ignore)

    def first_stage(self, data: Path, configuration: str | None) -> Future[Any] | None:
        """A case as it is preprocessed for a cascade's first stage; None without one.

        `data` is the case's own file, `configuration` that of the first stage.
        """
        if configuration is None:
            return None
        return self.case(stages.beside(data, configuration), None)

    def trim(self) -> None:
        """Forget what failed, and the least recently used beyond the budget."""
        self._models.trim()
        self._cases.trim()

    def use_threads(self, number: int) -> None:
        """Have torch, and the reading of cases, use so many threads; on a CPU one."""
        number = places.threads_on(self.device.type, number)
        if self._torch.get_num_threads() != number:
            self._torch.set_num_threads(number)
            self._blosc2.set_nthreads(number)

    def try_twice(self, run: Callable[[], str]) -> str:
        """Run; when the device's memory runs out, once more with nothing kept there.

        Raises `UserError` when that is not enough.
        """
        try:
            return run()
        except self._torch.OutOfMemoryError:
            print("Out of memory: trying again with nothing kept.", flush=True)
        self.release()
        try:
            return run()
        except self._torch.OutOfMemoryError as error:
            raise UserError(
                f"The GPU's memory is too small for this case: {error}. If other "
                "programs hold much of it (nvidia-smi lists them), end them and run "
                "again; if a GPU has several slots, give it fewer (gpu_slots)."
            ) from error

    def release(self) -> None:
        """Drop all models and cases, and give memory back to the device."""
        self._models.clear()
        self._cases.clear()
        if self.device.type == "cuda":
            self._compiled_network.forget()
        gc.collect()
        if self.device.type == "cuda":
            self._torch.cuda.empty_cache()
        # glibc only, which keeps it otherwise (`service.KEEP_FREED_MEMORY`).
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
