"""Sliding-window inference equal to nnU-Net's, with tiles in batches.

The result is that of nnU-Net 2.8.1's `nnUNetPredictor` (Gaussian weights, mirroring).
What differs is how it is computed: tiles of many slices and their mirrored copies go
through the network together, sums are kept in float32 on the device (nnU-Net: in half
precision), and on a CPU the network is rewritten (`cpu_network`).

Logits and preprocessed data have the axes (channel, ...) in the order of the plans.
Nothing here depends on where it runs: the same functions serve a job and the resident
predictor.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)

from casesim.inference import compiled_network, cpu_network
from casesim.processes import card_memory, stall

if TYPE_CHECKING:
    from casesim.nnunet.checkpoints import Model

Index = tuple[slice, ...]
Network = Callable[[torch.Tensor], torch.Tensor]
# On a CPU, a batch serves to read the weights once and to keep the cores busy where the
# feature maps are small; with more voxels than this nothing is gained.
_VOXELS_PER_BATCH_CPU = 2**17
# Larger batches gain nothing on a GPU, and cuDNN counts elements in 32 bits.
_MAX_BATCH_GPU = 256
_rewritten: WeakKeyDictionary[torch.nn.Module, torch.nn.Module] = WeakKeyDictionary()


def predict_logits(
    model: Model,
    data: np.ndarray | torch.Tensor,
    mirroring: bool = True,
    tile_step: float = 0.5,
    batch_size: int | None = None,
    bfloat16: bool = False,
    compiled: bool = False,
) -> torch.Tensor:
    """Logits of one preprocessed case, float32 (class, a, b, c), on the model's device.

    As `nnUNetPredictor.predict_logits_from_preprocessed_data`. `data` is float32
    (channel, a, b, c) in the plans' axis order; for a 2d configuration, a are the
    slices. `tile_step` is the distance of tiles as a share of the patch. `batch_size`
    is the number of images (tiles times mirrored copies) that go through the network
    together, chosen by device and free memory when None; it is halved once if memory
    runs out. What is prepared for a network is kept as long as the network: its weights
    must not change between calls.

    On CUDA the network runs under autocast, as nnU-Net's does; `compiled` has it
    compiled there (`compiled_network`). `bfloat16` does the same as autocast on a CPU;
    off by default, since it changes the label of some voxels in a thousand.

    Raises `RuntimeError` when memory runs out twice, or for logits that are not finite.
    """
    device = next(model.network.parameters()).device
    patch = tuple(int(size) for size in model.configuration_manager.patch_size)
    mirrors = _mirrors((model.allowed_mirroring_axes if mirroring else None) or ())
    with torch.inference_mode():
        volume = torch.as_tensor(data, dtype=torch.float32).to(device)
        volume, unpad = pad_nd_image(volume, patch, "constant", {"value": 0}, True)
        windows = _windows(volume.shape[-len(patch) :], patch, tile_step)
        n_slices = volume.shape[1] if len(patch) == 2 else None
        n_tiles = len(windows) * (n_slices or 1)
        workers = min(torch.get_num_threads(), n_tiles) if device.type == "cpu" else 1
        compiled = compiled and device.type == "cuda" and batch_size is None
        if batch_size is None:
            batch_size = _batch_size(model.network, patch, device)
        if compiled:
            batch_size = min(batch_size, compiled_network.IMAGES)
        network: Network = (
            compiled_network.shared(model.network, batch_size)
            if compiled
            else _prepared(model.network, patch, device, bfloat16)
        )
        # nnU-Net rounds the weights to half precision, and thereby lifts the weakest
        # ones; without the same rounding, other voxels would win in the corners.
        gaussian = compute_gaussian(patch, 1 / 8, 10, torch.float16, device).float()

        @torch.inference_mode()  # each thread has a mode of its own
        def predict(runs: list[Index]) -> torch.Tensor:
            with _autocast(device, bfloat16):
                tiles = _gather(volume, runs, patch)
                predicted = _mirrored(network, tiles, mirrors, batch_size)
            return predicted.mul_(gaussian / len(mirrors))

        sums: torch.Tensor | None = None
        weights = volume.new_zeros(volume.shape[1:])
        halved = False
        done = 0
        while done < n_tiles:
            most = batch_size // len(mirrors)
            # Smaller batches would be filled up for a compiled network.
            size = most if compiled else _tiles_at_once(n_tiles, most, workers)
            size = max(1, size)
            batches = [
                list(_runs(windows, n_slices, first, min(first + size, n_tiles)))
                for first in range(done, n_tiles, size)
            ]
            try:
                results = _in_order(predict, batches, workers)
                for runs, predicted in zip(batches, results, strict=True):
                    if sums is None:
                        shape = (predicted.shape[1], *volume.shape[1:])
                        sums = volume.new_zeros(shape)
                    _scatter(predicted, runs, sums, weights, gaussian)
                    done += len(predicted)
                    stall.progress()
            except (RuntimeError, MemoryError) as error:
                if halved or batch_size == 1 or not _out_of_memory(error):
                    raise
                halved = True
                batch_size //= 2
                if compiled:
                    network = compiled_network.shared(model.network, batch_size)
        assert sums is not None
        sums /= weights
        if not torch.isfinite(sums).all():
            raise RuntimeError("the network's logits are not finite")
        return sums[(slice(None), *unpad[1:])]


def voxels(
    model: Model, shape: Sequence[int], mirroring: bool, tile_step: float
) -> int:
    """Voxels that go through the network for a case of this shape (channel, a, b, c).

    Each counts once for every window and mirrored copy that it is in.
    """
    patch = tuple(int(size) for size in model.configuration_manager.patch_size)
    axes = (model.allowed_mirroring_axes if mirroring else None) or ()
    padded = [max(n, p) for n, p in zip(shape[-len(patch) :], patch, strict=True)]
    tiles = len(_windows(padded, patch, tile_step))
    if len(patch) == 2:
        tiles *= shape[1]
    return tiles * 2 ** len(axes) * math.prod(patch)


def _autocast(device: torch.device, bfloat16: bool) -> torch.autocast:
    if device.type == "cuda":
        return torch.autocast("cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)


def _tiles_at_once(n_tiles: int, most: int, workers: int) -> int:
    """Tiles of a batch, at most `most`, such that all workers have the same to do."""
    rounds = -(-n_tiles // (workers * max(1, most)))
    return -(-n_tiles // (workers * rounds))


def _in_order(
    predict: Callable[[list[Index]], torch.Tensor],
    batches: Sequence[list[Index]],
    workers: int,
) -> Iterator[torch.Tensor]:
    """Results in the order of the batches.

    On a CPU each thread works on batches of its own (`workers`): threads that share
    each operation wait for each other hundreds of times a batch, and for long where
    another program takes a core.
    """
    if workers == 1:
        yield from map(predict, batches)
        return
    threads = torch.get_num_threads()
    inside = max(1, threads // workers)
    torch.set_num_threads(inside)
    try:
        with ThreadPoolExecutor(
            workers, initializer=torch.set_num_threads, initargs=(inside,)
        ) as pool:
            waiting: deque[Future[torch.Tensor]] = deque()
            for batch in batches:
                waiting.append(pool.submit(predict, batch))
                if len(waiting) > 2 * workers:  # few results in memory
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)


def _prepared(
    network: torch.nn.Module,
    patch: Sequence[int],
    device: torch.device,
    bfloat16: bool,
) -> torch.nn.Module:
    """The network in the form that is fastest here."""
    if device.type != "cpu" or bfloat16:
        module: Any = network  # torch's types lack this argument
        module.to(memory_format=_memory_format(len(patch), device))
        return network
    if network not in _rewritten:
        _rewritten[network] = cpu_network.for_inference(network)
    return _rewritten[network]


def _mirrors(axes: Sequence[int]) -> list[list[int]]:
    """All combinations of mirrored axes, none first, as dimensions of a batch."""
    return [
        [axis + 2 for axis in some]
        for n in range(len(axes) + 1)
        for some in itertools.combinations(axes, n)
    ]


def _windows(shape: Sequence[int], patch: Sequence[int], step: float) -> list[Index]:
    """Where tiles lie, in the axes of the patch."""
    starts = compute_steps_for_sliding_window(tuple(shape), tuple(patch), step)
    return [
        tuple(slice(low, low + size) for low, size in zip(corner, patch, strict=True))
        for corner in itertools.product(*starts)
    ]


def _runs(
    windows: Sequence[Index], n_slices: int | None, start: int, stop: int
) -> Iterator[Index]:
    """Tiles `start` to `stop` as few blocks of (channel, ...), counted by window.

    In 2d (`n_slices` given) a block holds the same window in neighbouring slices, in 3d
    it is one tile.
    """
    if n_slices is None:
        for window in windows[start:stop]:
            yield (slice(None), *window)
        return
    while start < stop:
        number, first = divmod(start, n_slices)
        last = min(n_slices, first + stop - start)
        yield (slice(None), slice(first, last), *windows[number])
        start += last - first


def _gather(
    volume: torch.Tensor, runs: Sequence[Index], patch: Sequence[int]
) -> torch.Tensor:
    """Tiles of the volume as a batch (tile, channel, ...)."""
    if len(patch) == 3:
        return torch.stack([volume[run] for run in runs])
    return torch.cat([volume[run] for run in runs], dim=1).movedim(1, 0)


def _scatter(
    predicted: torch.Tensor,
    runs: Sequence[Index],
    sums: torch.Tensor,
    weights: torch.Tensor,
    gaussian: torch.Tensor,
) -> None:
    """Add weighted logits of tiles (tile, class, ...) to those of the volume."""
    first = 0
    for run in runs:
        if gaussian.ndim == 3:
            sums[run] += predicted[first]
            first += 1
        else:
            last = first + run[1].stop - run[1].start
            sums[run] += predicted[first:last].movedim(0, 1)
            first = last
        weights[run[1:]] += gaussian


def _mirrored(
    network: Network,
    tiles: torch.Tensor,
    mirrors: Sequence[list[int]],
    batch_size: int,
) -> torch.Tensor:
    """Sum over mirrored copies of the logits (tile, class, ...), in float32."""
    at_once = max(1, batch_size // len(tiles))
    total: torch.Tensor | None = None
    for first in range(0, len(mirrors), at_once):
        some = mirrors[first : first + at_once]
        batch = torch.cat([tiles.flip(dims) for dims in some])
        form = _memory_format(batch.ndim - 2, batch.device)
        logits = network(batch.contiguous(memory_format=form))
        for part, dims in zip(logits.chunk(len(some)), some, strict=True):
            part = part.float().flip(dims)
            total = part if total is None else total.add_(part)
    assert total is not None
    return total


def _memory_format(dimensions: int, device: torch.device) -> torch.memory_format:
    if dimensions == 2:
        return torch.channels_last
    # In 3d, oneDNN is faster with the usual layout.
    return torch.contiguous_format if device.type == "cpu" else torch.channels_last_3d


def _batch_size(
    network: torch.nn.Module, patch: Sequence[int], device: torch.device
) -> int:
    """Images to send through the network together.

    On a GPU a power of two: what is free changes from cell to cell, and with the size
    the last bits of logits would change, and a network be compiled anew.
    """
    if device.type != "cuda":
        return max(1, _VOXELS_PER_BATCH_CPU // int(np.prod(patch)))
    # All feature maps in half precision and a copy in single: more than are alive at
    # any moment of a pass without gradients.
    feature_map_size: Any = network.compute_conv_feature_map_size
    per_image = 6 * int(feature_map_size(patch))
    most = card_memory.available(device) // 2 // per_image
    return 1 << int(np.clip(most, 1, _MAX_BATCH_GPU)).bit_length() - 1


def _out_of_memory(error: BaseException) -> bool:
    # On a CPU, torch raises a bare RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "DefaultCPUAllocator" in str(error)
    )
