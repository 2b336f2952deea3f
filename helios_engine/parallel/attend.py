"""The attention of a sharded sequence: Ulysses inside, ring outside (USP, section 3), either of them alone, or neither.

Legend: B batch, L tokens, H heads, K head width.
"""

from dataclasses import dataclass

import torch

from helios_engine.ops.attention_backends import AttendFn, sdpa
from helios_engine.parallel.mesh import Mesh
from helios_engine.parallel.ring import ring_attention
from helios_engine.parallel.ulysses import gather_heads, scatter_heads


@dataclass(frozen=True, kw_only=True)
class ParallelAttend:
    """Attention over the keys of all ranks of the mesh's context axis; a drop-in for `sdpa` on each rank's shard.

    query_tokens, key_tokens: tokens that each rank of the axis holds. They cannot be told from the tensors: other ranks
    may hold one token more or less. attend: computes the attention where no ring is; a ring has its own way.
    """

    mesh: Mesh
    query_tokens: tuple[int, ...]
    key_tokens: tuple[int, ...]
    attend: AttendFn = sdpa

    def __call__(self, q_BLHK: torch.Tensor, k_BLHK: torch.Tensor, v_BLHK: torch.Tensor) -> torch.Tensor:
        """(B, own queries, H, K) to the same shape."""
        ulysses, ring, heads = self.mesh.ulysses, self.mesh.ring, q_BLHK.shape[2]
        rows = range(0, self.mesh.context.size, ulysses.size)  # the first ranks of the Ulysses groups, in ring order
        row = slice(rows[ring.index], rows[ring.index] + ulysses.size)
        queries, keys = self.query_tokens[row], self.key_tokens[row]
        if ulysses.size > 1:
            q_BLHK, k_BLHK, v_BLHK = scatter_heads((q_BLHK, k_BLHK, v_BLHK), (queries, keys, keys), ulysses)
        if ring.size > 1:
            ring_keys = [sum(self.key_tokens[first : first + ulysses.size]) for first in rows]
            out_BLHK = ring_attention(q_BLHK, k_BLHK, v_BLHK, ring_keys, ring)
        else:
            out_BLHK = self.attend(q_BLHK, k_BLHK, v_BLHK)
        return gather_heads(out_BLHK, queries, heads, ulysses) if ulysses.size > 1 else out_BLHK
