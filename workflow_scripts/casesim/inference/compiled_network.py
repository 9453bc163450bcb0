"""One compiled network for all models of an architecture: weights are swapped in.

Compiling a network takes a GPU's predictor 10 to 20 s and makes it three to four times
as fast. All models of a run have one architecture, so that it is compiled once, with
weights of its own, into which those of the model that is wanted are copied.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterator
from weakref import ref

import torch
from torch import nn

from casesim.cells import ALWAYS_ENOUGH
from casesim.nnunet import compiling

# Images that go through the compiled network together, a power of two as all batches on
# a GPU are; larger ones are slower.
IMAGES = 64
# How many cells a predictor is going to be asked for; told by the workflow.
CELLS_VARIABLE = "CASESIM_CELLS"
# A compiled network saves about 5 ns for each voxel that goes through it, and compiling
# takes 10 to 20 s: see docs/benchmarks/predictor.md.
_VOXELS_THAT_EARN_COMPILING = 5e9


def earns_compiling(voxels: int) -> bool:
    """Whether as many cells are expected, of so many voxels each, as pay for it.

    Voxels count for each window and mirrored copy that they are in.
    """
    return _expected_cells() * voxels >= _VOXELS_THAT_EARN_COMPILING


def is_asked_for() -> bool:
    """Whether the network is to be compiled in any case."""
    return _expected_cells() >= ALWAYS_ENOUGH


def _expected_cells() -> int:
    return int(os.environ.get(CELLS_VARIABLE) or 0)


class CompiledNetwork:
    """Computes what networks of one architecture do, compiled for batches of one size.

    `compiler` is the back end of `torch.compile`.
    """

    def __init__(
        self, network: nn.Module, images: int = IMAGES, compiler: str = "inductor"
    ) -> None:
        self.images = images
        with torch.inference_mode(False):  # or the weights could never be changed
            self._plain = copy.deepcopy(network)
            ready = compiling.for_compiling(self._plain)
        self._compiled = torch.compile(ready, backend=compiler, dynamic=False)
        self._holds: ref[nn.Module] | None = None
        self.use(network)

    def use(self, network: nn.Module) -> CompiledNetwork:
        """Take over a network's weights, unless they are those that it has."""
        if self._holds is None or self._holds() is not network:
            with torch.no_grad():
                for own, other in zip(
                    _tensors(self._plain), _tensors(network), strict=True
                ):
                    own.copy_(other)
            self._holds = ref(network)
        return self

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of at most `images` images (image, channel, ...)."""
        number = len(images)
        if number < self.images:
            # Another size would be another network to compile.
            rest = images.new_zeros((self.images - number, *images.shape[1:]))
            images = torch.cat([images, rest])
        layout = compiling.channels_last(self._plain)
        logits: torch.Tensor = self._compiled(images.contiguous(memory_format=layout))
        return logits[:number]


def _tensors(network: nn.Module) -> Iterator[torch.Tensor]:
    """All that models of one architecture differ in."""
    return itertools.chain(network.parameters(), network.buffers())


_networks: dict[tuple[object, ...], CompiledNetwork] = {}


def shared(network: nn.Module, images: int = IMAGES) -> CompiledNetwork:
    """The compiled network of this architecture and device, with these weights."""
    key = (
        images,
        next(network.parameters()).device,
        tuple((name, tuple(p.shape)) for name, p in network.named_parameters()),
        str(network),
    )
    if key not in _networks:
        _networks[key] = CompiledNetwork(network, images)
    return _networks[key].use(network)


def forget() -> None:
    """Give up all compiled networks and their memory; the compiler's cache stays."""
    _networks.clear()
    torch.compiler.reset()
