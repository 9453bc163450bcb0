"""nnU-Net's networks made ready for `torch.compile` on a GPU, and its cache.

Compiled as it is, a third of the time of nnU-Net's 2d network on an H200 goes into
copies: instance normalisation is done for images in the usual layout, the convolutions
around it want channels-last. Here the normalisation is written in a way that the
compiler fuses with its neighbours, in either layout.
"""

from __future__ import annotations

import copy
import itertools
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from casesim.errors import UserError

_INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"


def use_compiler_cache(folder: str | os.PathLike[str]) -> None:
    """Keep what `torch.compile` makes in `folder`, for this process and its children.

    Processes that run at the same time may share it: entries are written under
    temporary names and renamed.
    """
    path = Path(folder).absolute()
    os.environ[_INDUCTOR] = str(path / "inductor")
    os.environ["TRITON_CACHE_DIR"] = str(path / "triton")


def cache_beside(model: str | os.PathLike[str]) -> Path:
    """Where a run keeps what the compiler makes: beside the folder of its models.

    `model` is a model folder or a file in it.
    """
    path = Path(model)
    for parent in path.parents:
        if parent.name == "models":
            return parent.parent / "compiled"
    return path.parent / "compiled"


def reason(error: BaseException) -> str:
    """The first line of what a compiler says, or of what kind its error is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Torch says first which back end it was.
    said = [line for line in lines if not line.endswith("raised:")]
    return said[0] if said else type(error).__name__


class Failure(NamedTuple):
    """What to tell of a compiler's error, and what may help where there is one."""

    told: str
    advice: str

    def going_on(self) -> str:
        """What to say where the work is done without."""
        return f"{self.told}: going on without, which is slower.{self.advice}"

    def refusal(self, key: str) -> UserError:
        """What to raise where the config asks for it in any case, by this key."""
        return UserError(
            f"{self.told}. Set {key} to auto, which goes on without, or to false."
            f"{self.advice}"
        )


def failure(error: BaseException) -> Failure:
    """A compiler's error, in words."""
    told = f"The network could not be compiled ({reason(error)})"
    cache = os.environ.get(_INDUCTOR)
    if cache is None:
        return Failure(told, "")
    # Files that a power cut left short, say.
    advice = f" If there is a C compiler, delete {Path(cache).parent}, its cache."
    return Failure(told, advice)


def channels_last(network: nn.Module) -> torch.memory_format:
    """The layout that a GPU's matrix units want for this network's images."""
    if any(parameter.ndim == 5 for parameter in network.parameters()):
        return torch.channels_last_3d
    return torch.channels_last


def for_compiling(network: nn.Module) -> nn.Module:
    """A copy that shares parameters and buffers, in channels-last layout.

    The layout of the network's own parameters changes with it. Normalisations of a kind
    not known here stay as they are.
    """
    form: Any = {"memory_format": channels_last(network)}
    network.to(**form)
    # Running statistics, too, which a training changes and a model keeps.
    tensors = itertools.chain(network.parameters(), network.buffers())
    shared = {id(tensor): tensor for tensor in tensors}
    made: Any = copy.deepcopy(network, shared)
    for block in made.modules():
        for name, child in block.named_children():
            if isinstance(child, nn.InstanceNorm2d | nn.InstanceNorm3d) and (
                not child.track_running_stats
            ):
                setattr(block, name, InstanceNorm(child))
    ready: nn.Module = made
    return ready


class InstanceNorm(nn.Module):
    """Instance normalisation in plain operations, statistics in single precision."""

    def __init__(self, norm: nn.InstanceNorm2d | nn.InstanceNorm3d) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight = norm.weight
        self.bias = norm.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise each channel of each image; `x` is (image, channel, ...)."""
        places = tuple(range(2, x.ndim))
        wide = x.float()
        variance, mean = torch.var_mean(wide, places, correction=0, keepdim=True)
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            shape = (1, -1, *(1 for _ in places))
            normal = (wide - mean) * (scale * self.weight.view(shape))
            normal = normal + self.bias.view(shape)
        else:
            normal = (wide - mean) * scale
        return normal.to(x.dtype)
