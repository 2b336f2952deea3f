"""Attention with its log-sum-exp, and the sum of such parts, against the plain softmax in float64."""

from collections.abc import Callable

import pytest
import torch

from helios_engine.parallel.partial import PartialAttention, partial_attention, plain_attention

Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], PartialAttention]


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> PartialAttention:
    """The fallback, in the layout of `partial_attention`."""
    out, lse = plain_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return PartialAttention(out_BHLK=out, lse_BHL=lse)


def inputs(scale: float, queries: int = 5, keys: int = 13, width: int = 20) -> tuple[torch.Tensor, ...]:
    """q, k, v with scores of this order."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, tokens, 3, width, generator=generator) for tokens in (queries, keys, keys))
    return q * scale, k, v


def expected(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (B, H, L, K) and log-sum-exp (B, H, L)."""
    q, k, v = (t.double().transpose(1, 2) for t in (q, k, v))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return scores.softmax(-1) @ v, scores.exp().sum(-1).log()


@pytest.mark.parametrize("kernel", [partial_attention, plain])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_output_and_log_sum_exp(kernel: Kernel, dtype: torch.dtype) -> None:
    q, k, v = (t.to(dtype) for t in inputs(3.0))
    part = kernel(q, k, v)
    out, lse = expected(q, k, v)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    assert part.lse_BHL.dtype == part.out_BHLK.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(part.out_BHLK.double(), out, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(part.lse_BHL.double(), lse, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kernel", [partial_attention, plain])
@pytest.mark.parametrize("sizes", [(13,), (1, 12), (6, 1, 6), (1,) * 13])
@pytest.mark.parametrize("scale", [0.1, 3.0, 60.0])
def test_merged_parts_are_the_attention_over_all_keys(kernel: Kernel, sizes: tuple[int, ...], scale: float) -> None:
    q, k, v = inputs(scale)
    parts = [kernel(q, *kv) for kv in zip(k.split(list(sizes), 1), v.split(list(sizes), 1), strict=True)]
    out, lse = expected(q, k, v)
    for order in (parts, parts[::-1]):
        merged = order[0]
        for part in order[1:]:
            merged = merged.merged(part)
        torch.testing.assert_close(merged.out_BHLK.double(), out, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(merged.lse_BHL.double(), lse, rtol=1e-5, atol=1e-5)


def test_scores_that_overflow_exp() -> None:
    q, k, v = inputs(1.0)
    k = torch.cat([k[:, :6] * 500, k[:, 6:] * 300], dim=1)
    merged = partial_attention(q, k[:, :6], v[:, :6]).merged(partial_attention(q, k[:, 6:], v[:, 6:]))
    scores = torch.einsum("blhk,bmhk->bhlm", q.double(), k.double()) / 20**0.5
    assert scores.max() > 300  # float32's exp ends at 88
    expected_out = scores.softmax(-1) @ v.double().transpose(1, 2)
    torch.testing.assert_close(merged.out_BHLK.double(), expected_out, rtol=1e-3, atol=1e-4)


def test_no_queries() -> None:
    part = partial_attention(*inputs(1.0, queries=0))
    assert part.out_BHLK.shape == (2, 3, 0, 20)
    assert part.lse_BHL.shape == (2, 3, 0)
