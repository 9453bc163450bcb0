"""The rewritten network against the one it was made from."""

from __future__ import annotations

import pytest
import torch
from dynamic_network_architectures.architectures.unet import (
    PlainConvUNet,
    ResidualEncoderUNet,
)
from torch import nn

from casesim.inference import cpu_network


def randomise(network: nn.Module) -> nn.Module:
    """Untrained affine parameters are 1 and 0, which would hide mistakes."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.InstanceNorm2d) and module.affine:
                module.weight.uniform_(-2, 2)
                module.bias.uniform_(-1, 1)
    return network.requires_grad_(False).eval()


def unet(**norm: object) -> nn.Module:
    torch.manual_seed(0)
    network = PlainConvUNet(
        3,
        4,
        [16, 64, 128, 128],
        nn.Conv2d,
        3,
        [1, 2, 2, 2],
        2,
        4,
        2,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True, **norm},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return randomise(network)


@pytest.mark.parametrize("size", [(40, 48), (64, 24)])
def test_same_output_as_the_network(size: tuple[int, int]) -> None:
    network = unet()
    fast = cpu_network.for_inference(network)
    images = torch.randn(3, 3, *size) * 5 + 2
    with torch.inference_mode():
        expected = network(images)
        # both memory layouts are taken
        for form in (torch.contiguous_format, torch.channels_last):
            given = images.contiguous(memory_format=form)
            torch.testing.assert_close(fast(given), expected, rtol=1e-4, atol=1e-4)
    kinds = [type(module) for module in fast.modules()]
    assert kinds.count(cpu_network.WinogradConvolution) == 7
    assert nn.InstanceNorm2d not in kinds


def test_network_keeps_its_parameters_and_shares_them() -> None:
    network = unet()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fast = cpu_network.for_inference(network)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    own = {parameter.data_ptr() for parameter in network.parameters()}
    assert {parameter.data_ptr() for parameter in fast.parameters()} <= own


def test_other_blocks_are_left_alone() -> None:
    torch.manual_seed(0)
    residual = ResidualEncoderUNet(
        2,
        3,
        [16, 32, 128],
        nn.Conv2d,
        3,
        [1, 2, 2],
        2,
        3,
        1,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    networks = [
        randomise(residual),
        unet(track_running_stats=True),
        unet(affine=False),
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).eval(),
    ]
    with torch.inference_mode():
        for network in networks:
            channels = next(network.parameters()).shape[1]
            images = torch.randn(2, channels, 32, 24)
            torch.testing.assert_close(
                cpu_network.for_inference(network)(images),
                network(images),
                rtol=1e-4,
                atol=1e-4,
            )


@pytest.mark.parametrize("height", [1, 3, 4, 6, 37])
@pytest.mark.parametrize("images", [1, 5])
def test_winograd_is_the_convolution(height: int, images: int) -> None:
    torch.manual_seed(height)
    convolution = nn.Conv2d(5, 7, 3, padding=1, bias=False).requires_grad_(False)
    winograd = cpu_network.WinogradConvolution(convolution.weight)
    for width in (1, 8, 130):
        x = torch.randn(images, 5, height, width)
        result = winograd(x.contiguous(memory_format=torch.channels_last))
        expected = convolution.double()(x.double()).float()
        convolution.float()
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
        assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [(5, 6), (40, 40)])
@pytest.mark.parametrize("affine", [True, False])
def test_normalisation_is_instance_normalisation(
    size: tuple[int, int], affine: bool
) -> None:
    torch.manual_seed(0)
    norm = randomise(nn.InstanceNorm2d(6, affine=affine))
    assert isinstance(norm, nn.InstanceNorm2d)
    x = 3 * torch.randn(2, 6, *size) + 10
    x[0, 0] = 4.3  # a constant channel becomes the bias
    result = cpu_network.InstanceNorm(norm)(
        x.contiguous(memory_format=torch.channels_last)
    )
    # Rounding of a constant is divided by the root of eps, 0.003.
    assert (result - norm(x))[0, 0].abs().max() < 0.01
    torch.testing.assert_close(result[1], norm(x)[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result[0, 1:], norm(x)[0, 1:], rtol=1e-4, atol=1e-5)
