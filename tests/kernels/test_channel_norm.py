"""The VAE's norm: launcher against reference; reference against the formula, padding against the convolution."""

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


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("past", [0, 2])
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reference_is_its_formula(dtype: torch.dtype, silu: bool, past: int, reuse: bool) -> None:
    x, gamma = random(2, 13, 3, 4, 5, device=CPU, dtype=dtype), random(13, 1, 1, 1, device=CPU, seed=1)
    x[:, :, 1, 0, 1] = 0.0  # stays zero
    before = x.clone()
    y = F.normalize(before.double(), dim=1) * 13**0.5 * gamma.double()
    expected = F.pad(F.silu(y) if silu else y, (0, 0, 0, 0, past, 0)).to(dtype)
    assert_close(channel_norm.channel_norm(x, gamma, silu=silu, past=past, reuse=reuse), expected)
    assert reuse or torch.equal(x, before)


def test_the_convolution_runs_on_the_result_as_it_is() -> None:
    x = random(1, 6, 4, 5, 5, device=CPU)
    norm, conv = ChannelRMSNorm(6), CausalConv3d(6, 3, (3, 3, 3))
    with torch.no_grad():
        expected = conv(F.silu(norm(x)))
        padded = channel_norm.channel_norm(x, norm.gamma, silu=True, past=conv.past)
        assert_close(nn.Conv3d.forward(conv, padded), expected)
