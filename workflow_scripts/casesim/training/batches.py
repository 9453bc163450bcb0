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
    that raises a `RuntimeError`.
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

    A worker that is killed while it hands a batch over may show as a reset connection,
    and what PyTorch's signal handler says of it be lost.
    """
    try:
        yield from loader
    except ConnectionError as error:
        raise RuntimeError(
            "A DataLoader worker was killed as it handed a batch over: out of memory?"
        ) from error


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
