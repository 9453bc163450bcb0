"""How jobs that compute share a machine without a GPU: their number, threads, memory.

A network's results depend, in their last bits, on the number of threads that sum up;
after a training, in the first digits. So each job has one thread whatever the machine
has, and the cores are used by running several jobs at a time. One thread is also what
a core makes the most of (`benchmarks/threads.py`).

Light: the workflow asks before anything is loaded.
"""

import os
from contextlib import suppress
from pathlib import Path

from casesim.processes import devices

THREADS = 1
# Beside a GPU they make batches; the results are the device's.
THREADS_WITH_GPU = 8

# How many there are, told to the jobs.
VARIABLE = "CASESIM_PLACES"

# A predictor at work on small networks was seen to hold 0.6 GB, some of it shared with
# others, a small training as much; real networks need more, and fewer cores then.
_BYTES_OF_A_JOB = 1 << 30


def computes_here(limit: int | None) -> bool:
    """Whether jobs on this machine compute on its CPU.

    `limit` is how many GPUs a run may use at a time, None where nobody said: a run that
    may use none, or finds none, has the CPU.
    """
    return limit == 0 or not devices.visible_gpus()


def how_many(cores: int) -> int:
    """Jobs at a time on the CPU: one on each core, as far as the memory goes."""
    return max(1, min(cores, available_memory() // _BYTES_OF_A_JOB))


def threads_on(device: str, given: int) -> int:
    """How many of the threads that a job was given it computes with on a device.

    `device` is torch's name of it. On a CPU always the same number: a job may be given
    more because a GPU was expected that turns out to be unusable, or by a cluster.
    """
    return THREADS if device == "cpu" else given


def share_of_memory() -> float:
    """The share that a job on the CPU may fill beside others of the same run."""
    return 1 / max(1, int(os.environ.get(VARIABLE) or 1))


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
