"""A whole transformer block out of the dispatch functions: their signatures suffice, and the result is the engine's."""

import pytest
import torch

from helios_engine.attention import MAX_KEY_SCALE, TextKeysValues, sdpa
from helios_engine.block import Block
from helios_engine.configs import TransformerConfig
from helios_kernels.gated_residual import add_gated, add_gated_affine_norm, add_noisy_modulated_norm
from helios_kernels.modulated_norm import modulated_norm
from helios_kernels.norm_rotate import norm_rotate
from helios_kernels.rms_norm import rms_norm
from kernel_checks import random


def fused(
    block: Block,
    x: torch.Tensor,
    time_26D: torch.Tensor,
    history: int,
    table: torch.Tensor,
    text: TextKeysValues,
    *,
    noisy_only: bool,
) -> torch.Tensor:
    """What `Block.forward` becomes."""
    shift, scale, gate, shift_ffn, scale_ffn, gate_ffn = (block.scale_shift_table + time_26D).unbind(1)
    own, cross, eps = block.attn1, block.attn2, block.eps
    assert own.history_key_scale is not None

    normed = modulated_norm(x, history, shift, scale, eps)
    first = history if noisy_only else 0
    q, k = norm_rotate(
        own.to_q(normed[:, first:]),
        own.to_k(normed),
        own.norm_q.weight,
        own.norm_k.weight,
        table,
        own.heads,
        eps,
        history,
        1.0 + torch.sigmoid(own.history_key_scale) * (MAX_KEY_SCALE - 1.0),
    )
    update = own.to_out[0](sdpa(q, k, own.to_v(normed).unflatten(-1, (own.heads, -1))).flatten(2))
    if noisy_only:
        x, history = x[:, history:], 0
    x, noisy = add_gated_affine_norm(x, update, history, gate, block.norm2.weight, block.norm2.bias, eps)

    q = rms_norm(cross.to_q(noisy), cross.norm_q.weight, eps).unflatten(-1, (cross.heads, -1))
    update = cross.to_out[0](sdpa(q, text.k_BLHK, text.v_BLHK).flatten(2))
    x, normed = add_noisy_modulated_norm(x, update, history, shift_ffn, scale_ffn, eps)
    return add_gated(x, block.ffn(normed), history, gate_ffn)


@pytest.mark.parametrize("noisy_only", [False, True])
def test_block_of_fused_kernels_is_the_block(noisy_only: bool) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = TransformerConfig(
        num_attention_heads=3, attention_head_dim=12, rope_dim=(4, 4, 4), ffn_dim=50, is_amplify_history=True
    )
    torch.manual_seed(0)
    block = Block(config).requires_grad_(False)
    for name, parameter in block.named_parameters():
        if not name.endswith(("proj.weight", "0.weight")):  # nothing stays at its identity initialisation
            parameter.add_(0.3 * torch.randn_like(parameter))
    block.to(device)
    x, time = random(2, 7, 36, device=device), random(2, 6, 36, device=device, seed=1)
    table = torch.polar(torch.ones(7, 6), torch.randn(7, 6)).to(device)
    text = TextKeysValues(random(2, 5, 3, 12, device=device, seed=2), random(2, 5, 3, 12, device=device, seed=3))
    expected = block(x, time, 3, table, text, noisy_only=noisy_only)
    actual = fused(block, x, time, 3, table, text, noisy_only=noisy_only)
    # float32 throughout; matrix products amplify the last bits of their inputs
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
