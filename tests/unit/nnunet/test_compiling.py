"""Networks made ready for the compiler compute the same; weights stay shared."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from unit.inference.networks import make_model

from casesim.nnunet import compiling


@pytest.mark.parametrize("patch", [(16, 16), (16, 16, 8)])
def test_the_same_function_with_the_same_weights(patch: tuple[int, ...]) -> None:
    network = make_model(patch).network
    before = copy.deepcopy(network)
    ready = compiling.for_compiling(network)
    images = torch.randn((2, 2, *patch))
    with torch.no_grad():
        expected = before(images)
        torch.testing.assert_close(ready(images), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)
    ours = {id(parameter) for parameter in ready.parameters()}
    assert ours == {id(parameter) for parameter in network.parameters()}
    layout: Any = {"memory_format": compiling.channels_last(network)}
    assert all(
        parameter.is_contiguous(**layout)
        for parameter in ready.parameters()
        if parameter.ndim == len(patch) + 2
    )


def test_running_statistics_stay_shared() -> None:
    """Plans of one's own may ask for batch normalisation."""
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    ready = compiling.for_compiling(network)
    before = {name: tensor.clone() for name, tensor in network.named_buffers()}
    ready(torch.randn((2, 2, 8, 8)))
    for name, tensor in network.named_buffers():
        assert not torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("affine", [True, False])
def test_gradients_are_those_of_torchs_normalisation(affine: bool) -> None:
    norm = torch.nn.InstanceNorm2d(3, affine=affine)
    if affine:
        torch.nn.init.uniform_(norm.weight, 0.5, 2)
    ours = compiling.InstanceNorm(norm)
    images = 5 + 3 * torch.randn((2, 3, 7, 6))
    weights = torch.randn((2, 3, 7, 6))
    gradients = []
    for module in (norm, ours):
        leaf = images.clone().requires_grad_()
        (module(leaf) * weights).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


def test_statistics_are_in_single_precision() -> None:
    norm = torch.nn.InstanceNorm2d(1)
    images = (1000 + torch.randn((1, 1, 32, 32))).half()
    ours = compiling.InstanceNorm(norm)(images)
    assert ours.dtype == torch.float16
    assert float(ours.float().std()) == pytest.approx(1, abs=0.01)


def test_the_cache_is_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.chdir(tmp_path)
    compiling.use_compiler_cache("results/compiled")
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert Path(os.environ[name]).parent == tmp_path / "results/compiled"
    error = RuntimeError("backend='inductor' raised:\nPermission denied\nmore")
    told, advice = compiling.failure(error)
    assert told == "The network could not be compiled (Permission denied)"
    assert f"delete {tmp_path / 'results/compiled'}, its cache" in advice
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    assert compiling.failure(error) == (told, "")


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("results/models/base", "results/compiled"),
        ("prefix/results/models/finetuned/a", "prefix/results/compiled"),
        ("elsewhere/a", "elsewhere/compiled"),
    ],
)
def test_a_run_shares_what_the_compiler_makes(model: str, folder: str) -> None:
    assert compiling.cache_beside(model) == Path(folder)
