"""The batches of a training: batch i depends on (seed, i) alone, whoever prepares it.

The number of loading processes does not matter, nor where a training was interrupted.
"""

import random
import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from torch.utils.data import DataLoader, Dataset

from casesim.errors import UserError

# How PyTorch begins to say it; its thread that pins batches ends by the same reset
# connection.
_OF_A_KILLED_WORKER = ("DataLoader worker (pid", "Pin memory thread exited")
# Streams of random numbers.
WEIGHTS, TRAINING, VALIDATION = range(3)


class Batches(Dataset[dict[str, Any]]):
    """The batches of one training: batch i is a function of (seed, stream, i) alone."""

    def __init__(self, loader: nnUNetDataLoader, seed: int, stream: int) -> None:
        self.loader = loader
        self._seed = (seed, stream)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`data` (b, channel, ...), `target` one for each resolution, `keys` (b)."""
        seed_all(*self._seed, index)
        return self.loader.generate_train_batch()


def iterate(
    batches: Dataset[dict[str, Any]], indices: range, workers: int, device: torch.device
) -> Iterator[dict[str, Any]]:
    """The batches in order, prepared by `workers` processes or, with 0, by this one.

    PyTorch's loader rather than batchgenerators', whose processes outlive a training
    that is killed, and whose training waits for ever when one of them is killed. Here
    the batch that is wanted next then raises a `UserError`.
    """
    return _ended_by_a_killed_worker(
        DataLoader(
            batches,
            batch_size=None,
            sampler=indices,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=device.type == "cuda",
            worker_init_fn=_leave_signals_to_the_training,
            # Not all systems can fork; those that spawn get a copy of the cases.
            multiprocessing_context=(
                "fork" if workers and sys.platform == "linux" else None
            ),
        )
    )


def _ended_by_a_killed_worker(
    loader: DataLoader[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """The loader's batches.

    A worker that is killed while it hands a batch over may show as a reset connection.
    """
    try:
        # No name for the iterator: an error that remembers this frame would keep it.
        yield from _started(loader)
    except (ConnectionError, RuntimeError) as error:
        is_reset = isinstance(error, ConnectionError)
        if not is_reset and not str(error).startswith(_OF_A_KILLED_WORKER):
            raise
        raise UserError(
            f"A process that prepared batches was killed ({error}). If nobody did "
            "that, the machine's memory ran out, or the job's: give the rule more "
            "mem_mb, or run fewer jobs at once."
        ) from error


def _started(loader: DataLoader[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The loader's iterator, without the handler of SIGCHLD that comes with it.

    That raises an error wherever the training is when a worker dies: in the middle of a
    checkpoint, or in the compiler, which would seem to have failed.
    """
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if before is not None and signal.getsignal(signal.SIGCHLD) is not before:
        signal.signal(signal.SIGCHLD, before)
    return batches


def _unchanged(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_training(_: int) -> None:
    """Let a loading process outlive a signal to all, until the training has saved.

    It ends when the training ends it, and half a minute after SIGTERM at the latest.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(30))


def seed_all(*entropy: int) -> None:
    """Seed every source of random numbers that nnU-Net draws from on the CPU."""
    numbers = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(numbers[0]))
    np.random.seed(numbers[1])
    # Not torch.manual_seed, which also reseeds each GPU, for every batch.
    torch.default_generator.manual_seed(int(numbers[2]))
