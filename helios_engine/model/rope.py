"""Rotary position embedding over (frame, row, column), with averaged tables for the patched history.

Legend: L tokens, P = head_dim / 2 rotated pairs. Source: `HeliosRotaryPosEmbed` (diffusers). Relative:
positions count from the start of the history window, so they never grow with the video.
"""

import torch
import torch.nn.functional as F


def rotary_table(
    frames: torch.Tensor, height: int, width: int, rope_dim: tuple[int, int, int], theta: float, pool: int = 1
) -> torch.Tensor:
    """Complex rotations for a grid of tokens.

    frames: (T,) frame positions; height, width: the token grid before pooling. With `pool` > 1 the cosines and
    sines are averaged over pool^3 blocks (edges replicated), which is the position of a history patch of that size.
    Returns (L, P) complex64, L = ceil(T/pool) * ceil(height/pool) * ceil(width/pool), frame-major.
    """
    device = frames.device
    positions = (
        frames.to(torch.float32),
        torch.arange(height, dtype=torch.float32, device=device),
        torch.arange(width, dtype=torch.float32, device=device),
    )
    shape = (len(frames), height, width)
    parts = []
    for axis, (position, dim) in enumerate(zip(positions, rope_dim, strict=True)):
        inverse = 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim))
        angle_NP = torch.outer(position, inverse)
        view = [1, 1, 1, dim // 2]
        view[axis] = shape[axis]
        parts.append(angle_NP.view(view).expand(*shape, -1))
    angle_THWP = torch.cat(parts, dim=-1)
    if pool == 1:
        return torch.polar(torch.ones_like(angle_THWP), angle_THWP).flatten(0, 2)
    return torch.complex(_pooled(angle_THWP.cos(), pool), _pooled(angle_THWP.sin(), pool))


def _pooled(table_THWP: torch.Tensor, pool: int) -> torch.Tensor:
    table_PTHW = pad_to_multiple(table_THWP.movedim(-1, 0)[None], (pool, pool, pool))
    return F.avg_pool3d(table_PTHW, pool)[0].movedim(0, -1).flatten(0, 2)


def pad_to_multiple(x_BCTHW: torch.Tensor, multiple: tuple[int, int, int]) -> torch.Tensor:
    """Replicates the last frame, row and column until every size divides by `multiple`."""
    t, h, w = (-size % m for size, m in zip(x_BCTHW.shape[2:], multiple, strict=True))
    return F.pad(x_BCTHW, (0, w, 0, h, 0, t), mode="replicate") if t or h or w else x_BCTHW
