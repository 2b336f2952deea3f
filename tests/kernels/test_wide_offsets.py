"""Offsets past 2^31 values: tensors of a few rows, spread over memory that is reserved but hardly touched."""

import pytest
import torch

from helios_kernels import channel_norm, gated_residual, modulated_norm, norm_rotate, rms_norm
from kernel_checks import EPS, assert_close, random

FAR = 2**30 + 16


@pytest.fixture
def spread(device: torch.device) -> torch.Tensor:
    """(1, 3, 24) whose rows lie `FAR` values from each other."""
    memory = torch.empty(2 * FAR + 24, dtype=torch.bfloat16, device=device)
    x = memory.as_strided((1, 3, 24), (2 * FAR + 24, FAR, 1))
    return x.copy_(random(1, 3, 24, device=device))


def test_rows_far_apart(spread: torch.Tensor) -> None:
    near, (weight, bias) = spread.clone(), random(2, 24, device=spread.device, seed=1)
    rows = random(2, 24, device=spread.device, seed=2)
    expected = modulated_norm.affine_norm_ref(near, weight, bias, EPS)
    assert_close(modulated_norm.affine_norm_triton(spread, weight, bias, EPS), expected)
    assert_close(rms_norm.rms_norm_triton(spread, weight, EPS), rms_norm.rms_norm_ref(near, weight, EPS))
    residual, normed = gated_residual.add_gated_modulated_norm_triton(spread, spread, 1, rows, rows, rows, EPS)
    assert_close(residual, gated_residual.add_gated_ref(near, near, 1, rows))
    assert_close(normed, modulated_norm.modulated_norm_ref(residual, 1, rows, rows, EPS))
    table = random(3, 4, 2, device=spread.device, seed=3)
    arguments = (weight, weight, table, 3, EPS)
    for one, other in zip(
        norm_rotate.norm_rotate_triton(spread, spread, *arguments),
        norm_rotate.norm_rotate_ref(near, near, *arguments),
        strict=True,
    ):
        assert_close(one, other)


def test_channels_far_apart(spread: torch.Tensor) -> None:
    x, gamma = spread.view(1, 3, 1, 4, 6), random(3, device=spread.device, seed=1)
    expected = channel_norm.channel_norm_ref(x.clone(), gamma, silu=True, past=1)
    assert_close(channel_norm.channel_norm_triton(x, gamma, silu=True, past=1), expected)
