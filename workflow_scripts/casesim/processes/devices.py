"""Which device a job computes on, so that no two are in each other's way.

The workflow engine counts GPUs but does not say which one a job may use. Each visible
GPU is a slot, and so is each place on the CPU; a slot is held by a lock file that the
kernel frees when its holder dies, however it dies. A GPU can be given several slots
(`VARIABLE`): small trainings leave most of a large card idle. Each then keeps to its
part of the memory (`card_memory`), and cells go to one predictor, in the first slot,
which keeps to its own.

Only light modules are imported, for the reason given in `locks`.
"""
# ruff: noqa: PTH110, PTH118, PTH208

import fcntl
import itertools
import os
import sys
import time
from zlib import crc32

from casesim.errors import UserError
from casesim.processes import locks, service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from casesim.processes.waiting import Wait

# How many trainings may share a GPU; told to the jobs by the workflow.
VARIABLE = "CASESIM_GPU_SLOTS"

# Told to a job that has a GPU, or a part of one that SLURM shares out.
_GIVEN_BY_SLURM = ("SLURM_STEP_GPUS", "SLURM_SHARDS_ON_NODE")
_SECONDS_BETWEEN_LOOKS = 0.05
# Another run of the same user can hold a GPU for as long as a training takes.
_LONGEST_SECONDS = 24 * 3600.0


def slots_of_a_gpu() -> int:
    """How many trainings may share a GPU; raises `UserError` for what is no number."""
    text = os.environ.get(VARIABLE) or "1"
    if not text.isdecimal() or int(text) < 1:
        raise UserError(
            f"{VARIABLE} is {text!r}: so many trainings share a GPU, 1 or more."
        )
    return int(text)


def visible_gpus() -> list[str]:
    """The GPUs this process may use, as `CUDA_VISIBLE_DEVICES` would name each.

    The variable itself where it is set (SLURM sets it), else the device files, numbered
    from 0 as CUDA does.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        names = [name.strip() for name in listed.split(",")]
        # CUDA ignores everything from the first invalid entry on; -1 is how to say
        # "none".
        return list(itertools.takewhile(lambda name: name and name != "-1", names))
    for folder, prefix in (("/dev", "nvidia"), ("/proc/driver/nvidia/gpus", "")):
        try:
            entries = os.listdir(folder)
        except OSError:
            continue
        devices = [
            entry
            for entry in entries
            if entry.startswith(prefix)
            and (not prefix or entry[len(prefix) :].isdigit())
        ]
        if devices:
            return [str(number) for number in range(len(devices))]
    # The Windows Subsystem for Linux shows its GPUs as one device file.
    return ["0"] if os.path.exists("/dev/dxg") else []


class Slot:
    """A device held by this process, until `close` or the end of the `with` block.

    `name` is unique on this host (within the SLURM job, which numbers its own GPUs from
    0); `gpu` is the device as `CUDA_VISIBLE_DEVICES` names it, None for the CPU.
    """

    def __init__(self, name: str, gpu: str | None, lock: int) -> None:
        self.name = name
        self.gpu = gpu
        self._lock = lock

    def __enter__(self) -> "Slot":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the device."""
        os.close(self._lock)


def reserve(number: int, shared: bool = False) -> Slot:
    """Take a free device, waiting for one where necessary.

    `number` is the job's `gpu` resource: 0 takes a place on the CPU, as does any number
    where no GPU is visible. More than one GPU is never used by one job. A GPU that
    SLURM has given to the job is used in any case: some sites have it asked for by
    another name (`gres`), or share it out (`shard`).

    `shared` is for clients of the resident predictor, which itself serves one at a
    time: when no device is free, they may queue for one that other clients hold.
    Without it, the holder is alone in its slot, and takes the last one that is free, so
    that the first is left to the predictor while there are others. Raises `UserError`
    when none is free for a day.
    """
    given = number > 0 or any(map(os.environ.get, _GIVEN_BY_SLURM))
    gpus = visible_gpus() if given else []
    places = range(1 if shared else slots_of_a_gpu())[::-1]
    wait = None
    while True:
        # Who empties /tmp takes it away, and it is made anew.
        folder = locks.private_folder()
        for name, gpu in _slots(gpus, places):
            lock = locks.try_lock(os.path.join(folder, f"{name}.device"))
            # A lock is not made shared in one step: another job can come in between.
            if lock is not None and (
                not shared or locks.lock_file(lock, fcntl.LOCK_SH)
            ):
                return Slot(name, gpu, lock)
        if shared:
            for name, gpu in _slots(gpus, places):
                lock = locks.try_lock(
                    os.path.join(folder, f"{name}.device"), fcntl.LOCK_SH
                )
                if lock is not None:
                    return Slot(name, gpu, lock)
        wait = wait or _wait(folder, next(_slots(gpus, places))[0])
        wait.look()
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _wait(folder: str, name: str) -> "Wait":
    from casesim.processes.waiting import Wait

    return Wait(
        "a free GPU",
        _LONGEST_SECONDS,
        "Jobs of another run may hold it: wait for their end, or stop them, then start "
        "again.",
        lock=os.path.join(folder, f"{name}.device"),
    )


def acquire(number: int) -> "Acquired":
    """Hold a device alone for a training job: `with acquire(gpu) as device:`.

    `number` is the job's `gpu` resource; `device` is a torch device name, "cuda:0" or
    "cpu". A resident predictor in the same slot gives its memory back first, and on a
    GPU of several slots so much has to be free as is a slot's. To be called before CUDA
    is first used, because the device is chosen by setting `CUDA_VISIBLE_DEVICES`. When
    the GPU's memory runs out, raises `UserError` instead.
    """
    return Acquired(number)


class Acquired:
    """The context manager of `acquire`."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> str:
        self._slot = reserve(self._number)
        try:
            return self._made_ready()
        except BaseException:
            self._slot.close()
            raise

    def _made_ready(self) -> str:
        service.release(self._slot.name)
        device = torch_device(self._slot.gpu)
        self._slots = 1 if device == "cpu" else slots_of_a_gpu()
        if self._slots > 1:
            from casesim.processes import card_memory

            card_memory.take_part(self._slots, first_slot(self._slot.name))
        return device

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        self._slot.close()
        if kind is None or kind.__name__ != "OutOfMemoryError":
            return
        if self._slots > 1:
            raise UserError(
                f"Its part of the GPU's memory was too small for this job: {error}. "
                f"Give a GPU fewer slots than {self._slots} (gpu_slots)."
            ) from error
        raise UserError(
            f"The GPU's memory was too small for this job: {error}. If other programs "
            "hold much of it (nvidia-smi lists them), end them and run again. If not, "
            "plan for less: nnunet.gpu_memory_target_gb, or nnunet.batch_size; all "
            "models are trained anew then."
        ) from error


def predictor_device(gpu: str | None) -> str:
    """As `torch_device`, for a predictor: of a GPU of several slots it takes a part."""
    device = torch_device(gpu)
    if device != "cpu" and (slots := slots_of_a_gpu()) > 1:
        from casesim.processes import card_memory

        card_memory.keep_to_part(slots)
    return device


def first_slot(name: str) -> str:
    """The slot of the same GPU in which its predictor is."""
    return name.partition(".")[0]


def torch_device(gpu: str | None) -> str:
    """A slot's torch device name; this process sees no other GPU from now on."""
    if gpu is None:
        return "cpu"
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    import torch

    if torch.cuda.is_available():
        return "cuda:0"
    print(
        f"GPU {gpu} cannot be used by this PyTorch ({torch.__version__}); "
        "computing on the CPU instead.",
        file=sys.stderr,
        flush=True,
    )
    return "cpu"


def _slots(
    gpus: list[str], places: "Iterable[int]"
) -> "Iterator[tuple[str, str | None]]":
    """Slots as names and GPUs: every GPU's first of `places`, then the next one's."""
    job = os.environ.get("SLURM_JOB_ID")
    prefix = f"job{job}-" if job else ""
    for place in places:
        for gpu in gpus:
            short = gpu if gpu.isdigit() else f"{crc32(gpu.encode()):08x}"
            yield f"{prefix}gpu{short}{f'.{place}' if place else ''}", gpu
    if not gpus:
        for number in itertools.count():
            yield f"{prefix}cpu{number}", None
