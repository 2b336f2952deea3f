"""Norm, rotation and key scaling of queries and keys: launcher against reference, reference against the formula."""

import pytest
import torch

import kernel_checks
from helios_kernels import norm_rotate
from kernel_checks import EPS, assert_close, random

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
CASES = [  # batch, tokens, heads, head width, history tokens
    (1, 1, 1, 2, 0),
    (1, 1, 3, 6, 1),
    (2, 5, 5, 10, 2),
    (1, 4, 3, 12, 4),
    (2, 3, 4, 8, 0),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_launcher(device: torch.device, case: tuple[int, int, int, int, int], dtype: torch.dtype) -> None:
    kernel_checks.norm_rotate(norm_rotate, device, dtype, case)
    kernel_checks.norm_rotate(norm_rotate, device, dtype, case, scales=case[2], fused=False)
    kernel_checks.norm_rotate(norm_rotate, device, dtype, case, scales=1, first=case[4], real_table=True)


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("scales", [None, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reference_is_its_formula(dtype: torch.dtype, scales: int | None, first: int) -> None:
    heads, width, history = 3, 12, 3
    dim, cpu = heads * width, torch.device("cpu")
    q, k = (random(2, 7, dim, device=cpu, dtype=dtype, seed=seed) for seed in (0, 1))
    q_weight, k_weight = random(2, dim, device=cpu, dtype=dtype, seed=2)
    angle = random(7, width // 2, device=cpu, seed=3)
    table = torch.polar(torch.full_like(angle, 0.9), angle)
    key_scale = None if scales is None else random(scales, device=cpu, seed=4) + 2.0

    def rotated(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        y = x.double() / (x.double().square().mean(-1, keepdim=True) + EPS).sqrt() * weight.double()
        even, odd = y.view(2, 7, heads, -1, 2).unbind(-1)
        cos, sin = table.real.double()[:, None], table.imag.double()[:, None]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)

    expected_k = rotated(k, k_weight)
    if key_scale is not None:
        expected_k[:, :history] *= key_scale.double()[:, None]
    before = q.clone(), k.clone()
    for each in (table, torch.view_as_real(table)):
        found = norm_rotate.norm_rotate(q[:, first:], k, q_weight, k_weight, each, heads, EPS, history, key_scale)
        for actual, expected in zip(found, (rotated(q, q_weight)[:, first:], expected_k), strict=True):
            assert_close(actual, expected.to(dtype))
    assert torch.equal(q, before[0])
    assert torch.equal(k, before[1])
