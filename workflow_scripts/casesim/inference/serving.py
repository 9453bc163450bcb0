"""One cell of the matrix: what its client asks for, and the predictor that does it.

The resident predictor (`casesim.processes.resident_server`) is given this module by
name: `parse_job` reads a request, `make_predictor` loads what computes. Importing it is
cheap; torch and nnU-Net are imported when a predictor is made.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from casesim.errors import UserError
from casesim.inference.loading import Cache, available_memory

if TYPE_CHECKING:
    import numpy as np

    from casesim.nnunet import checkpoints

# Of the memory that is available when the predictor starts: the network, the tiles and
# the rest of the workflow need the most of it.
_CACHED_SHARE = 0.25


@dataclass(frozen=True)
class Job:
    """What the client of one cell asks for; all paths are absolute."""

    model: str
    case: str
    checkpoint: Path
    data: Path
    label: Path
    prediction: Path
    score: Path
    threads: int
    labels: dict[str, int]
    regions: dict[str, tuple[int, ...]]
    options: dict[str, Any]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}\n{self.format_usage()}")


def parse_job(directory: str, arguments: list[str]) -> Job:
    """The client's arguments, its relative paths seen from its working directory.

    Raises `UserError` for arguments that are missing, unknown or malformed.
    """

    def path(text: str) -> Path:
        return Path(directory, text)

    parser = _Parser(prog="predict", add_help=False, allow_abbrev=False)
    for name in ("model", "case"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("checkpoint", "data", "label", "prediction", "score"):
        parser.add_argument(f"--{name}", required=True, type=path)
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--gpu", required=True, type=int)
    parser.add_argument("--labels", required=True, type=parse_regions)
    parser.add_argument("--regions", required=True, type=parse_regions)
    parser.add_argument("--tile-step", default=0.5, type=float)
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--mirroring", default=True, action=switch)
    parser.add_argument("--bfloat16", default=False, action=switch)
    parser.add_argument("--resident", default=True, action=switch)
    given = vars(parser.parse_args(arguments))
    labels = given.pop("labels")
    options = {name: given.pop(name) for name in ("mirroring", "tile_step", "bfloat16")}
    del given["gpu"], given["resident"]
    return Job(
        **given,
        labels={name: numbers[0] for name, numbers in labels.items()},
        options=options,
    )


def parse_regions(text: str) -> dict[str, tuple[int, ...]]:
    """`WT=1,2,3;TC=2,3` as names and label numbers."""
    regions = {}
    for part in filter(None, text.split(";")):
        name, _, numbers = part.rpartition("=")
        if not name:
            raise ValueError(f"no name in {part!r}")
        regions[name] = tuple(int(number) for number in numbers.split(","))
    return regions


@dataclass(frozen=True)
class _Case:
    """A preprocessed case and its reference label map on the original grid."""

    data: np.ndarray
    properties: dict[str, Any]
    reference: np.ndarray


class NnunetPredictor:
    """Predicts and scores with nnU-Net models on one device, keeping what it loads."""

    def __init__(self, device: str) -> None:
        import blosc2
        import torch

        from casesim.inference import cell, label_maps
        from casesim.nnunet import checkpoints, preprocessing

        self._blosc2 = blosc2
        self._torch = torch
        self._cell = cell
        self._checkpoints = checkpoints
        self._label_maps = label_maps
        self._preprocessing = preprocessing
        self._device = torch.device(device)
        loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        memory = int(_CACHED_SHARE * available_memory())
        on_device = memory
        if self._device.type == "cuda":
            on_device = int(_CACHED_SHARE * torch.cuda.mem_get_info()[0])
        self._models = Cache(self._load_model, on_device, loader)
        self._cases = Cache(self._load_case, memory, loader)

    def _load_model(self, checkpoint: Path) -> tuple[checkpoints.Model, int]:
        model = self._checkpoints.load_model(checkpoint, self._device)
        tensors = model.network.state_dict().values()
        return model, sum(tensor.nbytes for tensor in tensors)

    def _load_case(self, data: Path, label: Path) -> tuple[_Case, int]:
        array, _, properties = self._preprocessing.load_preprocessed(
            data.with_suffix("")
        )
        reference = self._label_maps.read_label_map(label)
        case = _Case(array, properties, reference)
        return case, array.nbytes + reference.nbytes

    def _fetch(self, job: Job) -> tuple[Future[Any], Future[Any]]:
        folder = job.checkpoint.parent.parent
        plans = tuple(folder / name for name in ("plans.json", "dataset.json"))
        case = self._cases.fetch(
            job.data, job.label, also=(job.data.with_suffix(".pkl"),)
        )
        return self._models.fetch(job.checkpoint, also=plans), case

    def prefetch(self, job: Job) -> None:
        """Begin to load what a waiting request needs."""
        # What is missing is reported when the request's turn comes.
        with suppress(UserError):
            self._fetch(job)

    def run(self, job: Job) -> str:
        """Predict and score; return a line for the job's log.

        Raises `UserError` for files that are missing or damaged. When the device's
        memory runs out, everything kept there is given up for a second attempt.
        """
        try:
            return self._run(job)
        except self._torch.OutOfMemoryError:
            print("Out of memory: trying again with nothing kept.", flush=True)
        self.release()
        return self._run(job)

    def _run(self, job: Job) -> str:
        start = time.perf_counter()
        if self._torch.get_num_threads() != job.threads:
            self._torch.set_num_threads(job.threads)
            self._blosc2.set_nthreads(job.threads)
        loading_model, loading_case = self._fetch(job)
        model, _ = loading_model.result()
        case, _ = loading_case.result()
        self._models.trim()
        self._cases.trim()
        loaded = time.perf_counter() - start
        seconds = self._cell.run_cell(
            model=model,
            data=case.data,
            properties=case.properties,
            reference=case.reference,
            label_path=job.label,
            prediction_path=job.prediction,
            score_path=job.score,
            model_name=job.model,
            case=job.case,
            labels=job.labels,
            regions=job.regions,
            options=job.options,
        )
        steps = ", ".join(
            f"{name} {value:.3f} s"
            for name, value in ({"load": loaded} | seconds).items()
        )
        return f"{job.model} on {job.case} ({self._device}): {steps}"

    def release(self) -> None:
        """Drop all models and cases, and give memory back to the device."""
        self._models.clear()
        self._cases.clear()
        gc.collect()
        if self._device.type == "cuda":
            self._torch.cuda.empty_cache()
        # glibc only, which keeps it otherwise (`service.KEEP_FREED_MEMORY`).
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def make_predictor(device: str) -> NnunetPredictor:
    """The predictor of cells, on a torch device."""
    return NnunetPredictor(device)
