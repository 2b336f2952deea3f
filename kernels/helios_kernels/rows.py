"""Products by one of two rows that the token's position picks: row 0 for history tokens, row 1 for noisy ones.

Legend: B batch, L tokens (history first, then noisy), D width.
"""

import torch

from helios_kernels.backend import needs_gradient


def at_rows(x_BLD: torch.Tensor, history_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Views of x: history tokens (row 0) and noisy ones (row 1)."""
    return x_BLD[:, :history_tokens], x_BLD[:, history_tokens:]


def add_product_by_row(
    onto: torch.Tensor, x_BLD: torch.Tensor, factor_2D: torch.Tensor, history_tokens: int, *, reuse: torch.Tensor
) -> torch.Tensor:
    """onto + x * factor[row]: (B, L, D). onto: (B, L, D), or (2, D), a row of its own for each. All float32.

    reuse: memory of that shape which nothing needs any more, x's or onto's own perhaps. The result is written there
    unless a gradient is needed: fresh memory costs page faults.
    """
    onto_rows = onto if onto.dim() == 2 else at_rows(onto, history_tokens)
    parts = zip(onto_rows, at_rows(x_BLD, history_tokens), factor_2D, strict=True)
    if needs_gradient(onto, x_BLD, factor_2D) or torch.compiler.is_compiling():
        return torch.cat([torch.addcmul(base, x, factor) for base, x, factor in parts], dim=1)
    for out, (base, x, factor) in zip(at_rows(reuse, history_tokens), parts, strict=True):
        torch.addcmul(base, x, factor, out=out)
    return reuse
