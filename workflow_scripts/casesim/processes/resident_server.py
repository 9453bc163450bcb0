"""The resident predictor itself: models and cases stay loaded between `predict` jobs.

One request is computed at a time, in the main thread. Other threads accept requests,
load the cases and models of those that wait while the present one computes, and look
after the end: the process goes when its owner (see `background.find_owner`) is gone,
when nobody has asked for anything for ten minutes, when its socket has vanished, or at
SIGTERM.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

from casesim.errors import UserError
from casesim.processes import background_server, devices
from casesim.processes.background_server import (
    IDLE_SECONDS,
    SECONDS_BETWEEN_LOOKS,
    answer,
    explain,
)

if TYPE_CHECKING:
    import numpy as np

    from casesim.nnunet import checkpoints

Value = TypeVar("Value")

_SECONDS_TO_STOP = 5.0
# Of the memory that is available when the server starts: the network, the tiles and the
# rest of the workflow need the most of it.
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


class Predictor(Protocol):
    """What the server needs of the thing that computes."""

    def prefetch(self, job: Job) -> None: ...

    def run(self, job: Job) -> str: ...

    def release(self) -> None: ...


class Cache(Generic[Value]):
    """Values loaded in the background; the least recently used go when room is short.

    `load` returns a value and its size in bytes. Calls may come from several threads.
    """

    def __init__(
        self,
        load: Callable[..., tuple[Value, int]],
        budget: int,
        loader: ThreadPoolExecutor,
    ) -> None:
        self._load = load
        self._budget = budget
        self._loader = loader
        self._entries: OrderedDict[Hashable, Future[tuple[Value, int]]] = OrderedDict()
        self._lock = threading.Lock()

    def fetch(self, *paths: Path, also: tuple[Path, ...] = ()) -> Future[Any]:
        """The value of these files, being loaded unless it is there already.

        A file that has been written anew is loaded anew; so is the value when one of
        the files in `also` has, which `load` finds by itself. Raises `UserError` naming
        the file that is missing.
        """
        key = tuple(_fingerprint(path) for path in (*paths, *also))
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or (entry.done() and entry.exception()):
                entry = self._loader.submit(self._load, *paths)
                self._entries[key] = entry
            self._entries.move_to_end(key)
        return entry

    def trim(self) -> None:
        """Forget what failed, and the least recently used beyond the budget."""
        with self._lock:
            loaded = 0
            for key, entry in reversed(list(self._entries.items())):
                if not entry.done():
                    continue
                if entry.exception() is None:
                    loaded += entry.result()[1]
                if entry.exception() is not None or loaded > self._budget:
                    del self._entries[key]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()


def _fingerprint(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}). "
            "Run the workflow again to make it."
        ) from None
    return str(path), status.st_mtime_ns, status.st_size


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
        # glibc only, which keeps it otherwise (`background.KEEP_FREED_MEMORY`).
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def predict_once(directory: str, arguments: list[str], device: str) -> str:
    """One cell without a server, by the same code; return a line for the job's log."""
    job = parse_job(directory, arguments)
    return make_predictor(device).run(job)


def make_predictor(device: str) -> Predictor:
    """The predictor that servers use."""
    return NnunetPredictor(device)


def available_memory() -> int:
    """Bytes this process may still use, of the machine and of its control group."""
    free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(int(line.split()[1]) * 1024)
    # Batch systems limit a job by a control group, or one of those around it.
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            group = Path("/sys/fs/cgroup", line.split(":", 2)[2].lstrip("/"))
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError):
                    limit = int((folder / "memory.max").read_text())
                    used = int((folder / "memory.current").read_text())
                    free.append(max(limit - used, 0))
    return min(free)


@dataclass
class _Request:
    """A client that waits for its answer."""

    connection: socket.socket
    job: Job | None = None

    def abandoned(self) -> bool:
        """Whether the client has hung up, having been killed while it waited."""
        try:
            self.connection.setblocking(False)
            return not self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True


class Server:
    """Accepts requests and computes them one after the other."""

    def __init__(self, endpoint: background_server.Endpoint) -> None:
        self._endpoint = endpoint
        self._waiting: queue.Queue[_Request | None] = queue.Queue()
        self._predictor: Predictor | None = None
        self._computing = False
        self._last_use = time.monotonic()
        self._end = threading.Event()

    def run(self, make: Callable[[], Predictor]) -> int:
        """Serve until the end; return the exit status."""
        # Clients can queue from now on, while the packages are being imported.
        for target in (self._accept, self._watch):
            threading.Thread(target=target, daemon=True).start()
        failure = None
        try:
            try:
                self._predictor = make()
            except Exception as error:
                failure = explain(error)
                self._end.set()
            while (request := self._waiting.get()) is not None:
                if failure is None:
                    self._serve(request)
                else:
                    answer(request.connection, False, failure)
        finally:
            self._endpoint.remove_files()
        return 0 if failure is None else 1

    def _serve(self, request: _Request) -> None:
        assert self._predictor is not None
        if request.abandoned():
            request.connection.close()
            return
        self._computing = True
        fatal = False
        try:
            if request.job is None:
                self._predictor.release()
                text = ""
            else:
                text = self._predictor.run(request.job)
            succeeded = True
        except Exception as error:
            succeeded, text = False, explain(error)
            # After such an error CUDA refuses everything that this process asks for.
            fatal = "CUDA error" in str(error)
        answer(request.connection, succeeded, text)
        self._last_use = time.monotonic()
        self._computing = False
        if fatal:
            print(text, flush=True)
            sys.exit(1)

    def _accept(self) -> None:
        """Put requests into the queue, until the end and then None."""
        listener = self._endpoint.listener
        listener.settimeout(SECONDS_BETWEEN_LOOKS)
        while not self._end.is_set():
            with suppress(TimeoutError):
                self._receive(listener.accept()[0])
        for connection in self._endpoint.last_connections():
            self._receive(connection)
        self._waiting.put(None)

    def _receive(self, connection: socket.socket) -> None:
        self._last_use = time.monotonic()
        request = _Request(connection)
        try:
            request.job = self._read(connection)
        except Exception as error:
            answer(connection, False, explain(error))
            return
        if request.job is not None and self._predictor is not None:
            self._predictor.prefetch(request.job)
        self._waiting.put(request)

    def _read(self, connection: socket.socket) -> Job | None:
        """The job that a client asks for; None for a request to release memory."""
        request = background_server.read_request(connection)
        if request.verb == "release":
            return None
        if request.verb != "predict":
            raise UserError(f"Unknown request {request.verb!r}.")
        self._endpoint.check(request)
        return parse_job(request.directory, request.arguments)

    def _watch(self) -> None:
        """See to it that the server ends when nobody needs it any more."""
        while not self._end.wait(SECONDS_BETWEEN_LOOKS):
            if not self._endpoint.is_needed():
                # The handler's SystemExit lets a file being written be removed.
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(_SECONDS_TO_STOP)
                os._exit(1)
            idle = time.monotonic() - self._last_use > IDLE_SECONDS
            if idle and not self._computing and self._waiting.empty():
                self._end.set()


def serve(arguments: list[str]) -> int:
    """Be the server: `resident` starts this. Returns the exit status."""
    *given, gpu = arguments
    server = Server(background_server.start(*given))
    return server.run(lambda: make_predictor(devices.torch_device(gpu or None)))
