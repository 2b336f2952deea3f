"""Norms and gated residuals: launcher against reference, reference against the engine."""

import pytest
import torch
import torch.nn.functional as F

import kernel_checks
from helios_kernels import gated_residual, modulated_norm, rms_norm
from kernel_checks import EPS, assert_close, random

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
CASES = [  # batch, tokens, width, history tokens
    (1, 1, 1, 0),
    (1, 1, 7, 1),
    (2, 5, 96, 2),
    (2, 3, 130, 0),
    (1, 4, 257, 4),
    (1, 0, 8, 0),
]
CPU = torch.device("cpu")


@pytest.mark.parametrize("layout", ["contiguous", "sliced", "transposed"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_launchers(device: torch.device, case: tuple[int, int, int, int], dtype: torch.dtype, layout: str) -> None:
    kernel_checks.modulated_norm(modulated_norm, device, dtype, case, layout)
    kernel_checks.gated_residual(gated_residual, device, dtype, case, layout)
    kernel_checks.rms_norm(rms_norm, device, dtype, case, layout)


def by_row(history: int, rows_2D: torch.Tensor) -> torch.Tensor:
    """The row of each of 5 tokens, (5, D)."""
    return rows_2D[(torch.arange(5) >= history).long()]


def plain_modulated_norm(x: torch.Tensor, history: int, shift_2D: torch.Tensor, scale_2D: torch.Tensor) -> torch.Tensor:
    normed = F.layer_norm(x.float(), x.shape[-1:], eps=EPS)
    return (normed * (1.0 + by_row(history, scale_2D)) + by_row(history, shift_2D)).type_as(x)


@pytest.mark.parametrize("history", [0, 2, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_references_are_their_formulas(dtype: torch.dtype, history: int) -> None:
    x, update = (random(2, 5, 96, device=CPU, dtype=dtype, seed=seed) for seed in (0, 1))
    gate, shift, scale = random(2, 3, 96, device=CPU, seed=2).unbind(1)
    weight, bias = random(2, 96, device=CPU, seed=3)
    before = x.clone()
    normed = modulated_norm.modulated_norm_ref(x, history, shift, scale, EPS)
    assert_close(normed, plain_modulated_norm(x, history, shift, scale))
    residual = gated_residual.add_gated_ref(x, update, history, gate)
    assert_close(residual, (x.float() + update.float() * by_row(history, gate)).type_as(x))
    assert torch.equal(x, before)
    mean, variance = x.float().mean(-1, keepdim=True), x.float().var(-1, keepdim=True, unbiased=False)
    assert_close(
        modulated_norm.affine_norm_ref(x, weight, bias, EPS),
        ((x.float() - mean) / (variance + EPS).sqrt() * weight + bias).type_as(x),
    )
    squares = x.float().square().mean(-1, keepdim=True)
    assert_close(
        rms_norm.rms_norm_ref(x, weight.to(dtype), EPS),
        (x.float() / (squares + EPS).sqrt() * weight.to(dtype).float()).type_as(x),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("history", [0, 2, 5])
def test_fused_references_are_their_parts(history: int, dtype: torch.dtype) -> None:
    x, update = (random(2, 5, 96, device=CPU, dtype=dtype, seed=seed) for seed in (0, 1))
    gate, shift, scale = random(2, 3, 96, device=CPU, seed=2).unbind(1)
    weight, bias = random(2, 96, device=CPU, seed=3)
    before = x.clone()
    expected = gated_residual.add_gated_ref(x, update, history, gate)
    residual, normed = gated_residual.add_gated_modulated_norm(x, update, history, gate, shift, scale, EPS)
    assert_close(residual, expected)
    assert_close(normed, plain_modulated_norm(expected, history, shift, scale))
    residual, normed = gated_residual.add_gated_affine_norm(x, update, history, gate, weight, bias, EPS)
    assert_close(residual, expected)
    assert_close(normed, modulated_norm.affine_norm_ref(expected, weight, bias, EPS)[:, history:])
    expected = x.clone()
    expected[:, history:] += update[:, history:]
    residual, normed = gated_residual.add_noisy_modulated_norm(x, update[:, history:], history, shift, scale, EPS)
    assert_close(residual, expected)
    assert_close(normed, plain_modulated_norm(expected, history, shift, scale))
    assert torch.equal(x, before)
