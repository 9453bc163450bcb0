"""The memory of a GPU that several jobs share: each has its part, and no more."""

import time

import torch

from casesim.processes import service
from casesim.processes.waiting import Wait

# What CUDA itself takes for each process is beside torch's.
_USABLE = 0.9
_SECONDS_BETWEEN_LOOKS = 1.0
# Another run of the same user can hold a GPU for as long as a training takes.
_LONGEST_SECONDS = 24 * 3600.0

# This process's part of the memory of its GPU.
_part = 1.0


def take_part(slots: int, predictor: str) -> None:
    """Wait until a slot's part of the memory is free, and never take more than that.

    A part is nine tenths of the memory, divided by the number of `slots`. The resident
    predictor of the GPU (its slot is `predictor`) gives back what it keeps when there
    is less. Raises `UserError` when others hold the memory for a day.
    """
    part = _USABLE / slots
    asked, wait = False, None
    while True:
        free, total = torch.cuda.mem_get_info()
        if free >= part * total:
            break
        if not asked:
            service.release(predictor)
            asked = True
            continue
        wait = wait or Wait(
            f"{part * total / 2**30:.1f} GB of the GPU's memory, of which "
            f"{free / 2**30:.1f} GB are free",
            _LONGEST_SECONDS,
            "Other programs hold it: end them, or give a GPU fewer slots (gpu_slots).",
        )
        wait.look()
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    keep_to_part(slots)


def keep_to_part(slots: int) -> None:
    """Never take more than a slot's part of the memory, without waiting for it.

    For the resident predictor, which would else fill what trainings in the other slots
    have not taken yet.
    """
    global _part
    _part = _USABLE / slots
    torch.cuda.set_per_process_memory_fraction(_part)


def available(device: torch.device) -> int:
    """Bytes that this process may still fill on its GPU, within its part."""
    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    unused = reserved - torch.cuda.memory_allocated(device)
    return max(0, min(free, int(_part * total) - reserved)) + unused
