"""Which device a job computes on, so that at most one computes on each.

The workflow engine counts GPUs but does not say which one a job may use. Each visible
GPU is a slot, and so is each place on the CPU; a slot is held by a lock file that the
kernel frees when its holder dies, however it dies.

Only light modules are imported, and `os.path` is used instead of `pathlib`: the client
of the resident predictor starts once for every cell of the matrix, and pathlib alone
would double its time.
"""
# ruff: noqa: PTH102, PTH110, PTH117, PTH118
# ruff: noqa: PTH208

from __future__ import annotations

import fcntl
import itertools
import os
import stat
import sys
import time
from zlib import crc32

from casesim.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

# A UNIX socket's path has room for 104 bytes on macOS, 108 on Linux; names made here
# stay within 48.
_LONGEST_FOLDER = 50
_SECONDS_BETWEEN_LOOKS = 0.05


def private_folder() -> str:
    """The folder of locks and sockets: on a local disk, this user's alone (mode 0700).

    `$XDG_RUNTIME_DIR/casesim` where that is usable, else `/tmp/casesim-<user id>`, else
    the same name under `$TMPDIR`. Raises `UserError` when none can be trusted.
    """
    user = os.getuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    candidates = [os.path.join(runtime, "casesim")] if _is_private(runtime) else []
    candidates += [
        os.path.join(parent, f"casesim-{user}")
        for parent in ("/tmp", os.environ.get("TMPDIR", ""))
    ]
    for folder in candidates:
        if not os.path.isabs(folder) or len(os.fsencode(folder)) > _LONGEST_FOLDER:
            continue
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
        except OSError:
            continue
        if _is_private(folder):
            return folder
    raise UserError(
        "No private folder for the predictor's socket: none of "
        f"{', '.join(candidates)} is a folder of yours with mode 0700 and a path of at "
        f"most {_LONGEST_FOLDER} bytes. Delete what is in the way, or set "
        "XDG_RUNTIME_DIR to a folder of yours with mode 0700 on a local disk."
    )


def _is_private(folder: str) -> bool:
    """Whether it is a real folder (no link) of this user that nobody else can enter."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.getuid()
        and not status.st_mode & 0o077
    )


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

    def __enter__(self) -> Slot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
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
    another name (`gres`).

    `shared` is for clients of the resident predictor, which itself serves one at a
    time: when no device is free, they may queue for one that other clients hold.
    Without it, the holder is alone.
    """
    folder = private_folder()
    given = number > 0 or os.environ.get("SLURM_STEP_GPUS")
    gpus = visible_gpus() if given else []
    told = False
    while True:
        for name, gpu in _slots(gpus):
            lock = try_lock(os.path.join(folder, f"{name}.device"))
            # A lock is not made shared in one step: another job can come in between.
            if lock is not None and (not shared or _lock(lock, fcntl.LOCK_SH)):
                return Slot(name, gpu, lock)
        if shared:
            for name, gpu in _slots(gpus):
                lock = try_lock(os.path.join(folder, f"{name}.device"), fcntl.LOCK_SH)
                if lock is not None:
                    return Slot(name, gpu, lock)
        if not told:
            print("Waiting for a free GPU.", file=sys.stderr, flush=True)
            told = True
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def acquire(number: int) -> Acquired:
    """Hold a device alone for a training job: `with acquire(gpu) as device:`.

    `number` is the job's `gpu` resource; `device` is a torch device name, "cuda:0" or
    "cpu". A resident predictor on the same device gives its memory back first. To be
    called before CUDA is first used, because the device is chosen by setting
    `CUDA_VISIBLE_DEVICES`.
    """
    return Acquired(number)


class Acquired:
    """The context manager of `acquire`."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> str:
        from casesim.processes.resident import release_memory

        self._slot = reserve(self._number)
        release_memory(self._slot)
        return torch_device(self._slot.gpu)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._slot.close()


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


def _slots(gpus: list[str]) -> Iterator[tuple[str, str | None]]:
    job = os.environ.get("SLURM_JOB_ID")
    prefix = f"job{job}-" if job else ""
    for gpu in gpus:
        short = gpu if gpu.isdigit() else f"{crc32(gpu.encode()):08x}"
        yield f"{prefix}gpu{short}", gpu
    if not gpus:
        for number in itertools.count():
            yield f"{prefix}cpu{number}", None


def try_lock(path: str, kind: int = fcntl.LOCK_EX) -> int | None:
    """An open descriptor that holds the lock `path`, or None when another holds it.

    The lock lasts until every copy of the descriptor is closed, in child processes too.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if not _lock(lock, kind):
        return None
    # A file that its last holder has deleted is not the lock that others will find.
    if not os.fstat(lock).st_nlink:
        os.close(lock)
        return None
    return lock


def _lock(lock: int, kind: int) -> bool:
    """Lock an open file without waiting; close it when another holds it."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    return True
