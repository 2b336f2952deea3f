"""The VAE's norm: launcher against reference; reference and padding against the engine's layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kernel_checks
from helios_engine.vae.layers import CausalConv3d, ChannelRMSNorm
from helios_kernels import channel_norm
from kernel_checks import assert_close, random

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 1, 1, 1, 1), (2, 5, 3, 2, 3), (1, 13, 1, 5, 7), (1, 96, 2, 3, 3)]
CPU = torch.device("cpu")


@pytest.mark.parametrize("memory", ["contiguous", "channels_last", "frames", "channels_last columns", "columns"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_launcher(device: torch.device, shape: tuple[int, int, int, int, int], dtype: torch.dtype, memory: str) -> None:
    kernel_checks.channel_norm(channel_norm, device, dtype, shape, memory)
    kernel_checks.channel_norm(channel_norm, device, dtype, shape, memory, silu=False, past=0)


def test_many_tiles(device: torch.device) -> None:
    kernel_checks.channel_norm(channel_norm, device, torch.float32, (2, 3, 3, 17, 19), "contiguous")


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reference_matches_the_engine(dtype: torch.dtype, silu: bool) -> None:
    x = random(2, 13, 3, 4, 5, device=CPU, dtype=dtype)
    norm = ChannelRMSNorm(13).to(dtype).requires_grad_(False)
    norm.gamma.copy_(torch.randn(13, 1, 1, 1))
    expected = F.silu(norm(x)) if silu else norm(x)
    # the engine rounds after the division, each of two products and the SiLU: four units; the reference once
    assert_close(channel_norm.channel_norm(x, norm.gamma, silu=silu), expected, units=4)


def test_the_convolution_runs_on_the_result_as_it_is() -> None:
    x = random(1, 6, 4, 5, 5, device=CPU)
    norm, conv = ChannelRMSNorm(6), CausalConv3d(6, 3, (3, 3, 3))
    with torch.no_grad():
        expected = conv(F.silu(norm(x)))
        padded = channel_norm.channel_norm(x, norm.gamma, silu=True, past=conv.past)
        assert_close(nn.Conv3d.forward(conv, padded), expected)
