"""Norm, rotation and key scaling of queries and keys: launcher against reference, reference against the engine."""

from typing import Any

import pytest
import torch

import kernel_checks
from helios_engine.configs import TransformerConfig
from helios_engine.model.attention import Attention, key_scales
from helios_kernels import norm_rotate
from kernel_checks import random

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


def test_values_are_a_view_of_the_fused_projection() -> None:
    qkv = random(2, 5, 3 * 12, device=torch.device("cpu"))
    weight, table = torch.ones(12), torch.ones(5, 2, dtype=torch.complex64)
    q, k, v = norm_rotate.norm_rotate_qkv(qkv, weight, weight, table, 3, 1e-6)
    assert q.shape == k.shape == v.shape == (2, 5, 3, 4)
    assert v.data_ptr() == qkv[..., 24:].data_ptr()
    assert torch.equal(v.flatten(2), qkv[..., 24:])


@pytest.mark.parametrize("noisy_only", [False, True])
@pytest.mark.parametrize("mode", ["per_head", "scalar"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reference_matches_the_engine(dtype: torch.dtype, mode: str, noisy_only: bool) -> None:
    """The queries and keys that `Attention.self_attention` hands to the attention, from a fused projection."""
    config = TransformerConfig(
        num_attention_heads=3, attention_head_dim=12, rope_dim=(4, 4, 4), ffn_dim=8, history_scale_mode=mode
    )
    torch.manual_seed(0)
    attention = Attention(config, amplify_history=True).requires_grad_(False)
    heads, dim, history = config.num_attention_heads, config.inner_dim, 3
    for norm in (attention.norm_q, attention.norm_k):
        norm.weight.copy_(torch.rand(dim) + 0.5)
    assert attention.history_key_scale is not None
    attention.history_key_scale.copy_(torch.randn(heads if mode == "per_head" else 1))
    attention.to(dtype)
    key_scale = key_scales(attention.history_key_scale)

    x = random(2, 7, dim, device=torch.device("cpu"), dtype=dtype)
    angle = random(7, dim // heads // 2, device=torch.device("cpu"))
    table = torch.polar(torch.full_like(angle, 0.9), angle)
    seen: list[Any] = []

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        seen.extend((q, k, v))
        return torch.zeros_like(q)

    attention.self_attention(x, history, table, key_scale, noisy_only=noisy_only, attend=attend)
    first = history if noisy_only else 0
    q, k = norm_rotate.norm_rotate(
        attention.to_q(x)[:, first:],
        attention.to_k(x),
        attention.norm_q.weight,
        attention.norm_k.weight,
        table,
        heads,
        config.eps,
        history,
        key_scale,
    )
    assert (q.dtype, k.dtype, q.shape, k.shape) == (dtype, dtype, seen[0].shape, seen[1].shape)
    for actual, expected in ((q, seen[0].float()), (k, seen[1].float())):
        # relative to the pair's length, as the rotation mixes its two values; the engine rounds three times (norm,
        # rotation, scaling) and the reference once: four units. In float32 the sums of the norm come on top
        length = expected.unflatten(-1, (-1, 2)).norm(dim=-1, keepdim=True).expand(-1, -1, -1, -1, 2).flatten(-2)
        units = 4 if dtype == torch.bfloat16 else 16
        assert ((actual.float() - expected).abs() <= units * torch.finfo(dtype).eps * length).all()
