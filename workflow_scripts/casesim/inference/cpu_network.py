"""nnU-Net's networks rewritten for inference on a CPU: same function, less work.

Three quarters of nnU-Net's time on a CPU are convolutions that oneDNN computes near the
processor's peak, so that only fewer multiplications help. The rest is copying between
memory layouts, most of it for instance normalisation. Hence

* in 2d everything stays in channels-last layout, in which oneDNN needs no copies (in
  3d, the usual layout is the faster one);
* instance normalisation is written so that it needs no other layout;
* 3 x 3 convolutions between many channels use Winograd's minimal filtering
  F(4 x 4, 3 x 3) (Lavin and Gray 2016, arXiv:1509.09308), which takes 36
  multiplications for 16 outputs instead of 144, as matrix products.

Results differ from nnU-Net's by rounding in single precision (about 1e-5 of the largest
value of a feature map).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.simple_conv_blocks import (
    ConvDropoutNormReLU,
)
from torch import nn
from torch.nn import functional

# The transforms of F(4 x 4, 3 x 3) along one axis (Lavin and Gray 2016, section 4.4):
# input tile of 6, filter of 3, output tile of 4.
_INPUT = (
    (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
    (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
    (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
    (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
    (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
    (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
)
_FILTER = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
_OUTPUT = (
    (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, -1.0, 2.0, -2.0, 0.0),
    (0.0, 1.0, 1.0, 4.0, 4.0, 0.0),
    (0.0, 1.0, -1.0, 8.0, -8.0, 1.0),
)
# Below this many pairs of channels the transforms cost more than they save.
_MIN_CHANNEL_PAIRS = 64 * 64
# Output tiles (of 16 pixels) at a time: enough rows for the matrix products, few enough
# for the second-level cache.
_TILES_AT_A_TIME = 240
# From this many pixels on torch's group normalisation is fast in channels-last layout.
_MIN_PIXELS_GROUP_NORM = 1024


def for_inference(network: nn.Module) -> nn.Module:
    """A copy of a network that computes the same faster, on a CPU and in float32.

    The copy shares the parameters; in 2d it is in channels-last layout, and transformed
    filters take four times the memory of those they replace. Blocks of a kind not known
    here are left as they are.
    """
    shared = {id(tensor): tensor for tensor in network.parameters()}
    fast: Any = copy.deepcopy(network, shared)
    if not any(parameter.ndim == 5 for parameter in network.parameters()):
        fast.to(memory_format=torch.channels_last)
    for block in fast.modules():
        if isinstance(block, ConvDropoutNormReLU):
            _rewrite(block)
    rewritten: nn.Module = fast
    return rewritten


def _rewrite(block: ConvDropoutNormReLU) -> None:
    norm = getattr(block, "norm", None)
    if (
        not isinstance(norm, nn.InstanceNorm2d | nn.InstanceNorm3d)
        or norm.track_running_stats
        or block.all_modules[1] is not norm
    ):
        return
    convolution: nn.Module = block.conv
    if _suits_winograd(block.conv):
        # The normalisation that follows takes any bias away again.
        convolution = WinogradConvolution(block.conv.weight)
    rest = list(block.all_modules)[2:]
    block.conv, block.norm = convolution, InstanceNorm(norm)
    block.all_modules = nn.Sequential(block.conv, block.norm, *rest)


def _suits_winograd(convolution: nn.Module) -> bool:
    return (
        isinstance(convolution, nn.Conv2d)
        and convolution.kernel_size == (3, 3)
        and convolution.stride == (1, 1)
        and convolution.padding == (1, 1)
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.padding_mode == "zeros"
        and convolution.in_channels * convolution.out_channels >= _MIN_CHANNEL_PAIRS
    )


class InstanceNorm(nn.Module):
    """Instance normalisation that keeps the layout, channels-last in 2d."""

    def __init__(self, norm: nn.InstanceNorm2d | nn.InstanceNorm3d) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight = norm.weight
        self.bias = norm.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise each channel of each image; `x` is (image, channel, ...)."""
        n, channels = x.shape[:2]
        pixels = x[0, 0].numel()
        if x.ndim == 5 or pixels >= _MIN_PIXELS_GROUP_NORM:
            return functional.group_norm(x, channels, self.weight, self.bias, self.eps)
        height, width = x.shape[2:]
        flat = x.permute(0, 2, 3, 1).reshape(n, pixels, channels)
        # Sums over pixels as matrix products: torch's sums over an outer axis are slow.
        total = flat.new_ones(1, pixels)
        flat = flat - (total @ flat).div_(pixels)
        scale = (total @ flat.square()).div_(pixels).add_(self.eps).rsqrt_()
        if self.weight is not None:
            scale *= self.weight
        flat *= scale
        if self.bias is not None:
            flat += self.bias
        return flat.view(n, height, width, channels).permute(0, 3, 1, 2)


class WinogradConvolution(nn.Module):
    """3 x 3 convolution, stride 1, padding 1, no bias, by F(4 x 4, 3 x 3)."""

    filters: torch.Tensor
    input_transform: torch.Tensor
    output_transform: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        """Transform filters `weight` (out, in, 3, 3) to (36, in, out)."""
        super().__init__()
        out_channels, in_channels = weight.shape[:2]
        g = weight.new_tensor(_FILTER)
        with torch.no_grad():
            filters = torch.kron(g, g) @ weight.permute(2, 3, 1, 0).reshape(9, -1)
        output = weight.new_tensor(_OUTPUT)
        filters = filters.view(36, in_channels, out_channels)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("input_transform", weight.new_tensor(_INPUT), False)
        self.register_buffer("output_transform", torch.kron(output, output), False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve `x` (image, channel, h, w), channels-last in and out."""
        n, channels, height, width = x.shape
        rows, columns = -(-height // 4), -(-width // 4)
        out_channels = self.filters.shape[2]
        padded = x.new_zeros(n, 4 * rows + 2, 4 * columns + 2, channels)
        padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
        image, row, column, _ = padded.stride()
        # (6, 6, image, tile row, tile column, channel); tiles overlap by two pixels.
        tiles = padded.as_strided(
            (6, 6, n, rows, columns, channels),
            (row, column, image, 4 * row, 4 * column, 1),
        )
        result = x.new_empty(n, 4 * rows, 4 * columns, out_channels)
        places = result.view(n, rows, 4, columns, 4, out_channels)
        places = places.permute(2, 4, 0, 1, 3, 5)
        images_at_once = max(1, _TILES_AT_A_TIME // (rows * columns))
        rows_at_once = min(rows, max(1, _TILES_AT_A_TIME // columns))
        for i in range(0, n, images_at_once):
            for j in range(0, rows, rows_at_once):
                part = (
                    slice(None),
                    slice(None),
                    slice(i, i + images_at_once),
                    slice(j, j + rows_at_once),
                )
                places[part] = self._filter(tiles[part])
        result = result[:, :height, :width].permute(0, 3, 1, 2)
        return result.contiguous(memory_format=torch.channels_last)

    def _filter(self, tiles: torch.Tensor) -> torch.Tensor:
        """Filter tiles (6, 6, ..., in) to (4, 4, ..., out)."""
        between = tiles.shape[2:-1]
        across = self.input_transform @ tiles.reshape(6, -1)
        both = torch.bmm(self.input_transform.expand(6, 6, 6), across.view(6, 6, -1))
        products = torch.bmm(both.view(36, -1, tiles.shape[-1]), self.filters)
        output = self.output_transform @ products.view(36, -1)
        return output.view(4, 4, *between, -1)
