"""Our inference against nnU-Net's own predictor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from unit.inference.networks import (
    make_case,
    their_logits,
)

from casesim.inference import sliding_window


@pytest.mark.parametrize("mirroring", [True, False])
@pytest.mark.parametrize("tile_step", [0.5, 0.75, 1.0])
def test_mirroring_and_tile_step(mirroring: bool, tile_step: float) -> None:
    model, data, _ = make_case("2d")
    expected = their_logits(model, data, mirroring, tile_step)
    ours = sliding_window.predict_logits(model, data, mirroring, tile_step)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_mirroring_and_tile_step_matter() -> None:
    model, data, _ = make_case("2d")
    usual = sliding_window.predict_logits(model, data)
    for other in ({"mirroring": False}, {"tile_step": 0.75}):
        assert (
            sliding_window.predict_logits(model, data, **other) - usual
        ).abs().max() > 0.1


@pytest.mark.parametrize("axes", [None, (), (1,)])
def test_only_allowed_axes_are_mirrored(axes: tuple[int, ...] | None) -> None:
    model, data, _ = make_case("2d")
    model = replace(model, allowed_mirroring_axes=axes)
    expected = their_logits(model, data, mirroring=bool(axes))
    ours = sliding_window.predict_logits(model, data)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["2d", "3d-smaller-than-patch"])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
def test_batch_size_does_not_matter(name: str, batch_size: int) -> None:
    model, data, _ = make_case(name)
    model = replace(model, allowed_mirroring_axes=(0, 1))
    torch.testing.assert_close(
        sliding_window.predict_logits(model, data, batch_size=batch_size),
        sliding_window.predict_logits(model, data),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", ["2d", "2d-one-slice", "3d"])
def test_threads_do_not_matter(name: str) -> None:
    model, data, _ = make_case(name)
    model = replace(model, allowed_mirroring_axes=(1,))
    expected = sliding_window.predict_logits(model, data, batch_size=2)
    torch.set_num_threads(3)
    several = sliding_window.predict_logits(model, data, batch_size=2)
    assert torch.get_num_threads() == 3
    torch.testing.assert_close(several, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(
        sliding_window.predict_logits(model, data, batch_size=2), several
    )


def test_errors_in_threads_are_passed_on() -> None:
    model, data, _ = make_case("2d")
    network = OutOfMemory(0, RuntimeError("shapes do not fit"))
    torch.set_num_threads(2)
    with pytest.raises(RuntimeError, match="shapes"):
        sliding_window.predict_logits(
            replace(model, network=network), data, batch_size=16
        )
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("n_tiles", "most", "workers", "expected"),
    [
        (56, 12, 1, 12),  # 5 rounds: 12, 12, 12, 12, 8
        (56, 12, 2, 10),  # 3 rounds of 2
        (8, 100, 2, 4),
        (1, 0, 1, 1),
        (7, 0, 4, 1),
    ],
)
def test_work_is_shared_evenly(
    n_tiles: int, most: int, workers: int, expected: int
) -> None:
    assert sliding_window._tiles_at_once(n_tiles, most, workers) == expected


def test_bfloat16_is_close() -> None:
    model, data, _ = make_case("2d")
    usual = sliding_window.predict_logits(model, data)
    coarse = sliding_window.predict_logits(model, data, bfloat16=True)
    assert coarse.dtype == torch.float32
    difference = (coarse - usual).abs()
    assert 1e-4 < difference.max() < 0.5
    assert (coarse.argmax(0) == usual.argmax(0)).float().mean() > 0.95


class OutOfMemory(torch.nn.Module):
    """Raises `error` for batches of more than `limit` images, and notes their sizes."""

    def __init__(self, limit: int, error: Exception) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.limit, self.error = limit, error
        self.sizes: list[int] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> OutOfMemory:
        return self  # on a CPU, a copy of the network is used

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        if len(x) > self.limit:
            raise self.error
        return torch.cat([x, -x], dim=1) * self.scale


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_batch_is_halved_once_when_memory_runs_out(error: Exception) -> None:
    model, data, _ = make_case("2d")
    network = OutOfMemory(10, error)
    ours = sliding_window.predict_logits(
        replace(model, network=network), data, batch_size=16
    )
    assert network.sizes[:2] == [16, 8]
    assert max(network.sizes[1:]) <= 8
    torch.testing.assert_close(ours[:2], torch.as_tensor(data))

    again = OutOfMemory(6, error)
    with pytest.raises(type(error)):
        sliding_window.predict_logits(
            replace(model, network=again), data, batch_size=16
        )
    assert again.sizes == [16, 8]


def test_other_errors_are_not_retried() -> None:
    model, data, _ = make_case("2d")
    network = OutOfMemory(0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        sliding_window.predict_logits(
            replace(model, network=network), data, batch_size=16
        )
    assert len(network.sizes) == 1


def test_logits_that_are_not_finite_are_refused() -> None:
    model, data, _ = make_case("2d")
    data[0, 1, 5, 5] = np.nan
    with pytest.raises(RuntimeError, match="not finite"):
        sliding_window.predict_logits(model, data)
