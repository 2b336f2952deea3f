"""Norms and gated residuals: launcher against reference, reference against the engine."""

import pytest
import torch
import torch.nn.functional as F

import kernel_checks
from helios_engine.model import block
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


@pytest.mark.parametrize("history", [0, 2, 5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_references_match_the_engine(dtype: torch.dtype, history: int) -> None:
    x, update = (random(2, 5, 96, device=CPU, dtype=dtype, seed=seed) for seed in (0, 1))
    gate, shift, scale = random(2, 3, 96, device=CPU, seed=2).unbind(1)
    weight, bias = random(2, 96, device=CPU, seed=3)
    residual = block.add_gated(x, update, history, gate)
    normed = block.modulated_norm(residual, history, shift, scale, EPS)
    assert_close(modulated_norm.modulated_norm_ref(residual, history, shift, scale, EPS), normed)
    assert_close(gated_residual.add_gated_ref(x, update, history, gate), residual)
    assert_close(
        modulated_norm.affine_norm_ref(x, weight, bias, EPS),
        F.layer_norm(x.float(), (96,), weight, bias, EPS).type_as(x),  # norm2 in Block.forward
    )
    assert_close(rms_norm.rms_norm_ref(x, weight.to(dtype), EPS), F.rms_norm(x, (96,), weight.to(dtype), EPS))


@pytest.mark.parametrize("history", [0, 2, 5])
def test_fused_references_are_their_parts(history: int) -> None:
    x, update = (random(2, 5, 96, device=CPU, seed=seed) for seed in (0, 1))
    gate, shift, scale = random(2, 3, 96, device=CPU, seed=2).unbind(1)
    weight, bias = random(2, 96, device=CPU, seed=3)
    expected = block.add_gated(x, update, history, gate)
    residual, normed = gated_residual.add_gated_modulated_norm(x, update, history, gate, shift, scale, EPS)
    assert_close(residual, expected)
    assert_close(normed, block.modulated_norm(expected, history, shift, scale, EPS))
    residual, normed = gated_residual.add_gated_affine_norm(x, update, history, gate, weight, bias, EPS)
    assert_close(residual, expected)
    assert_close(normed, F.layer_norm(expected, (96,), weight, bias, EPS)[:, history:])
    expected = x.clone()
    expected[:, history:] += update[:, history:]
    residual, normed = gated_residual.add_noisy_modulated_norm(x, update[:, history:], history, shift, scale, EPS)
    assert_close(residual, expected)
    assert_close(normed, block.modulated_norm(expected, history, shift, scale, EPS))
