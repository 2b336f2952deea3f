"""Classifier-free guidance, plain and CFG-Zero*.

Sources: `HeliosPipeline` and `HeliosPyramidPipeline.__call__` (diffusers); CFG-Zero*: arXiv 2503.18886.
"""

import torch


def guide(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
    """unconditional + scale (conditional - unconditional), float32."""
    return torch.lerp(unconditional.float(), conditional.float(), scale)


def guide_zero_star(conditional: torch.Tensor, unconditional: torch.Tensor, scale: float) -> torch.Tensor:
    """The same as `guide`, but the unconditional velocity is first scaled to its projection on the conditional one.

    Both are velocities of a batch of one.
    """
    conditional, unconditional = conditional.float(), unconditional.float()
    projection = (conditional * unconditional).sum() / (unconditional.square().sum() + 1e-8)
    return guide(conditional, unconditional * projection, scale)
