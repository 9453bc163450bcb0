"""One compiled network for several models; a back end that compiles nothing."""

from typing import Any

import pytest
import torch
from unit.inference.networks import make_case, make_model

from casesim.inference import compiled_network, sliding_window
from casesim.inference.compiled_network import CompiledNetwork
from casesim.processes import card_memory


def test_weights_are_swapped_in() -> None:
    first, second = (make_model((16, 16), seed=seed).network for seed in (0, 1))
    compiled = CompiledNetwork(first, images=4, compiler="eager")
    images = torch.randn((4, 2, 16, 16))
    for network in (first, second, first):
        torch.testing.assert_close(
            compiled.use(network)(images), network(images), rtol=1e-4, atol=1e-4
        )
    assert not torch.allclose(first(images), second(images), atol=0.1)


def test_running_statistics_are_swapped_in() -> None:
    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        norm = torch.nn.BatchNorm2d(3)
        norm(5 * seed + torch.randn((4, 3, 8, 8)))
        networks.append(torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), norm).eval())
    first, second = networks
    compiled = CompiledNetwork(first, images=4, compiler="eager")
    images = torch.randn((4, 2, 8, 8))
    with torch.no_grad():
        for network in (second, first):
            torch.testing.assert_close(compiled.use(network)(images), network(images))


@pytest.mark.parametrize(
    ("images", "expected"),
    [(0.5, 1), (1, 1), (3, 2), (8, 8), (9, 8), (12, 8), (63, 32), (700, 256)],
)
def test_memory_that_changes_a_little_changes_no_batch(
    monkeypatch: pytest.MonkeyPatch, images: float, expected: int
) -> None:
    patch = (16, 16)
    network = make_model(patch).network
    feature_maps: Any = network.compute_conv_feature_map_size
    # Half of the memory is filled, with so many images of six bytes a value.
    free = int(images * 6 * int(feature_maps(patch)) * 2)
    monkeypatch.setattr(card_memory, "available", lambda _: free)
    device = torch.device("cuda")
    assert sliding_window._batch_size(network, patch, device) == expected
    assert compiled_network.IMAGES & (compiled_network.IMAGES - 1) == 0


@pytest.mark.parametrize("number", [1, 3, 4])
def test_batches_that_are_not_full(number: int) -> None:
    network = make_model((16, 16)).network
    compiled = CompiledNetwork(network, images=4, compiler="eager")
    sizes = []
    forward = compiled._compiled

    def note(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        logits: torch.Tensor = forward(images)
        return logits

    compiled._compiled = note
    images = torch.randn((number, 2, 16, 16))
    torch.testing.assert_close(compiled(images), network(images), rtol=1e-4, atol=1e-4)
    assert sizes == [4]  # nothing is compiled a second time


def test_the_compiler_itself() -> None:
    network = make_model((16, 16)).network
    images = torch.randn((2, 2, 16, 16))
    with torch.inference_mode():
        compiled = CompiledNetwork(network, images=2, compiler="aot_eager")
        torch.testing.assert_close(
            compiled(images), network(images), rtol=1e-4, atol=1e-4
        )


def test_models_of_one_architecture_share_a_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiled_network, "_networks", {})
    first, second = (make_model((16, 16), seed=seed).network for seed in (0, 1))
    shared = compiled_network.shared(first)
    assert compiled_network.shared(second) is shared
    assert compiled_network.shared(first, images=32) is not shared
    other = make_model((16, 16), channels=3).network
    assert compiled_network.shared(other) is not shared
    compiled_network.forget()
    assert compiled_network.shared(first) is not shared


@pytest.mark.parametrize(
    ("cells", "voxels", "expected"),
    [("", 10**9, False), ("5500", 17_000_000, True), ("200", 280_000, False)],
)
def test_compiling_is_for_many_large_cells(
    monkeypatch: pytest.MonkeyPatch, cells: str, voxels: int, expected: bool
) -> None:
    monkeypatch.setenv(compiled_network.CELLS_VARIABLE, cells)
    assert compiled_network.earns_compiling(voxels) == expected


@pytest.mark.parametrize(("name", "tiles"), [("2d", 3 * 3 * 2), ("3d", 1 * 2 * 3)])
def test_voxels_count_for_each_window_and_copy(name: str, tiles: int) -> None:
    model, data, _ = make_case(name)
    patch = model.configuration_manager.patch_size
    number = 1
    for size in patch:
        number *= int(size)
    assert sliding_window.voxels(model, data.shape, False, 0.5) == tiles * number
    mirrored = sliding_window.voxels(model, data.shape, True, 0.5)
    assert mirrored == 2 ** len(patch) * tiles * number
