"""The Helios DiT: noisy latents, history and text in, flow velocity out.

Legend: B batch, C latent channels, T frames, h/w latent height and width, L tokens, D width, F features
of an output token, P rotary pairs.
Source: `HeliosTransformer3DModel` (diffusers); Helios paper: history injection, multi-term memory patches.
What depends only on the prompt, the chunk or the shape is computed once per prompt (`encode_text`), chunk
(`encode_history`) or shape (`table`), not once per step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from helios_engine.configs import HISTORY_FRAMES, TransformerConfig
from helios_engine.model.attention import TextKeysValues, key_scales
from helios_engine.model.block import Block, Modulation
from helios_engine.model.rope import pad_to_multiple, rotary_table
from helios_engine.ops.attention_backends import CHOOSER, AttendFn, sdpa
from helios_engine.ops.transfer import to_device
from helios_engine.request import LATENT_FRAMES_PER_CHUNK
from helios_kernels.backend import needs_gradient
from helios_kernels.modulated_norm import modulated_norm

FLOAT32_PARTS = frozenset({"time_embedder", "scale_shift_table", "norm1", "norm2", "norm3", "history_key_scale"})
"""Name parts of parameters that stay float32 whatever the model's dtype (as the reference keeps them)."""


def parameter_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype that the named parameter is kept in when the model runs in `dtype`."""
    return torch.float32 if FLOAT32_PARTS.intersection(name.split(".")) else dtype


Timestep = float | torch.Tensor
"""The noisy latents' timestep, 0 to 1000; or a row of `timestep_rows`, which holds the history's and theirs."""


def timestep_rows(timesteps: Sequence[float], device: torch.device) -> torch.Tensor:
    """(steps, 2) on the device: the history's timestep, which is 0, and the noisy latents'."""
    return to_device(torch.tensor([[0.0, timestep] for timestep in timesteps]), device)


@dataclass(frozen=True, kw_only=True)
class History:
    """History tokens of one chunk: (B, N, D), and the size of the latent grid that they came from."""

    tokens_BND: torch.Tensor
    height: int
    width: int
    anchored: bool = True
    """Whether the video's first frame is among the short memory; otherwise that holds one more recent frame."""


class TwoLinears(nn.Module):
    """Two linear layers under their published names."""

    def __init__(self, in_features: int, dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_features, dim)
        self.linear_2 = nn.Linear(dim, dim)


class ConditionEmbedder(nn.Module):
    """Embeds timesteps and text. Source: `HeliosTimeTextEmbedding`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim = config.inner_dim
        self.freq_dim = config.freq_dim
        self.time_embedder = TwoLinears(config.freq_dim, dim)
        self.time_proj = nn.Linear(dim, 6 * dim)
        self.text_embedder = TwoLinears(config.text_dim, dim)

    def embed_time(self, timestep_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,) timesteps to the embedding (B, D) and the block modulation (B, 6, D)."""
        half = self.freq_dim // 2
        exponent = torch.arange(half, dtype=torch.float32, device=timestep_B.device) / half
        angle = timestep_B[:, None].float() * torch.exp(-math.log(10_000.0) * exponent)
        features = torch.cat([angle.cos(), angle.sin()], dim=-1)
        embedder = self.time_embedder
        embedded = embedder.linear_2(F.silu(embedder.linear_1(features.type_as(embedder.linear_1.weight))))
        embedding_BD = embedded.type_as(self.time_proj.weight)
        return embedding_BD, self.time_proj(F.silu(embedding_BD)).unflatten(-1, (6, -1))

    def embed_text(self, prompt_embeds_BLD: torch.Tensor) -> torch.Tensor:
        """(B, L, text_dim) to (B, L, D)."""
        embedder = self.text_embedder
        projected: torch.Tensor = embedder.linear_2(F.gelu(embedder.linear_1(prompt_embeds_BLD), approximate="tanh"))
        return projected


class BlockTables(NamedTuple):
    """The small tables of all blocks together, float32: (blocks, 1, 6, D), and the key scales, (blocks, H or 1)."""

    scale_shift: torch.Tensor
    key_scale: torch.Tensor | None

    def modulations(self, time_26D: torch.Tensor, last_22D: torch.Tensor) -> list[Modulation]:
        """The modulation of each block.

        time_26D: the blocks' part that the timesteps give. last_22D: shift and scale of the norm behind the last block.
        """
        own = (self.scale_shift + time_26D.float()).unbind()
        following = [*(each_26D[:, :2] for each_26D in own[1:]), last_22D]
        scales = [None] * len(own) if self.key_scale is None else self.key_scale.unbind()
        return [Modulation(*each) for each in zip(own, following, scales, strict=True)]

    def to(self, device: torch.device) -> "BlockTables":
        """The same tables on the device."""
        key_scale = None if self.key_scale is None else self.key_scale.to(device)
        return BlockTables(self.scale_shift.to(device), key_scale)


class OutputNorm(nn.Module):
    """Holds the final modulation's table under its published name."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 2, dim))


class HeliosTransformer(nn.Module):
    """The DiT. Parameters carry the published names; `parameter_dtype` says which stay float32."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        dim, channels = config.inner_dim, config.in_channels
        self.patch_embedding, self.patch_short, self.patch_mid, self.patch_long = (
            _patch_embedding(channels, dim, config.patch_size, scale) for scale in (1, 1, 2, 4)
        )
        self.condition_embedder = ConditionEmbedder(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm_out = OutputNorm(dim)
        self.proj_out = nn.Linear(dim, config.out_channels * math.prod(config.patch_size))
        self.rotary = lru_cache(maxsize=64)(self._rotary)
        self.attend: AttendFn = sdpa
        self.kept_tables: BlockTables | None = None
        self.compiled = False

    def use_attention(self, attend: AttendFn) -> None:
        """Has all attention over unsharded keys computed by `attend`."""
        self.attend = attend
        for block in self._blocks():
            block.attn2.attend = attend

    def tables(self) -> BlockTables:
        """The blocks' tables, read once for all of them; `kept_tables` where the blocks' own are not at hand."""
        if self.kept_tables is not None:
            return self.kept_tables
        blocks = self._blocks()
        scales = [block.attn1.history_key_scale for block in blocks]
        return BlockTables(
            scale_shift=torch.stack([block.scale_shift_table for block in blocks]).float(),
            key_scale=key_scales(torch.stack(scales)) if self.config.is_amplify_history else None,  # type: ignore[arg-type]
        )

    def join_projections(self) -> None:
        """Has self-attention's three projections made in one product, where kernels are fused (`Attention`)."""
        for block in self._blocks():
            block.attn1.join_projections()

    def encode_text(self, prompt_embeds_BLD: torch.Tensor, *, padding_gradient: bool = True) -> list[TextKeysValues]:
        """Cross-attention keys and values of every block for (B, L, text_dim) prompt embeddings.

        padding_gradient: embeddings that need gradients get them for each row of their padding too, which takes longer.
        """
        last_counts = 1
        # elsewhere kernels without a mask are faster, and asking would wait
        if prompt_embeds_BLD.device.type == "cpu" and not (padding_gradient and needs_gradient(prompt_embeds_BLD)):
            prompt_embeds_BLD, last_counts = _fold_padding(prompt_embeds_BLD)
        text_BLD = self.condition_embedder.embed_text(prompt_embeds_BLD)
        return [block.attn2.keys_values(text_BLD, last_counts) for block in self._blocks()]

    def encode_history(self, history_BCThw: torch.Tensor, anchor_BC1hw: torch.Tensor | None) -> History:
        """Patches history latents [16 long, 2 mid, 1 short] and the anchor into tokens, long to short.

        Without an anchor the history has one latent more, a second short one.
        """
        long, mid, short = history_BCThw.tensor_split(_ends(HISTORY_FRAMES[:2]), dim=2)
        if anchor_BC1hw is not None:
            short = torch.cat([anchor_BC1hw, short], dim=2)
        tokens = (_patches(long, self.patch_long), _patches(mid, self.patch_mid), _patches(short, self.patch_short))
        height, width = history_BCThw.shape[-2:]
        anchored = anchor_BC1hw is not None
        return History(tokens_BND=torch.cat(tokens, dim=1), height=height, width=width, anchored=anchored)

    def forward(
        self,
        latents_BCThw: torch.Tensor,
        timestep: Timestep,
        history: History,
        text: list[TextKeysValues],
        table_LP: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Flow velocity of the noisy latents, (B, C, T, h, w), in their dtype.

        table_LP: what `table` returns for these latents, from a caller that has to own it.
        """
        if table_LP is None:
            table_LP = self.table(latents_BCThw, history)
        x_BLD = self.all_tokens(latents_BCThw, history)
        out_BLF = self.denoise_tokens(x_BLD, timestep, history.tokens_BND.shape[1], table_LP, text)
        return unpatchify(out_BLF, latents_BCThw.shape, self.config.patch_size)

    def table(self, latents_BCThw: torch.Tensor, history: History) -> torch.Tensor:
        """The rotations (L, P) of all tokens. They are cached for a while; who keeps an address only must own them."""
        height, width = latents_BCThw.shape[-2:]
        return self.rotary(height, width, history.height, history.width, history.anchored)

    def all_tokens(self, latents_BCThw: torch.Tensor, history: History) -> torch.Tensor:
        """Tokens (B, L, D), history first, then the patched noisy latents."""
        noisy_BLD = _patches(latents_BCThw, self.patch_embedding)
        return torch.cat([history.tokens_BND.expand(len(noisy_BLD), -1, -1), noisy_BLD], dim=1)

    def denoise_tokens(
        self,
        x_BLD: torch.Tensor,
        timestep: Timestep,
        history_tokens: int,
        table_LP: torch.Tensor,
        text: list[TextKeysValues],
        attend: AttendFn | None = None,
        attend_last: AttendFn | None = None,
    ) -> torch.Tensor:
        """Velocity of the noisy tokens, (B, noisy tokens, F = out_channels * patch volume), from all tokens.

        attend: the self-attention of all blocks but the last, where only the noisy tokens ask: attend_last. None: the
        model's own (`use_attention`).
        """
        attend, attend_last = attend or self.attend, attend_last or self.attend
        if not isinstance(timestep, torch.Tensor):
            timestep = timestep_rows([timestep], x_BLD.device)[0]
        time_2D, time_26D = self.condition_embedder.embed_time(timestep)
        last_12D = self.norm_out.scale_shift_table.float() + time_2D[1:, None].float()
        modulations = self.tables().modulations(time_26D, last_12D.expand(2, -1, -1))
        shift_2D, scale_2D = modulations[0].own_26D[:, :2].unbind(1)
        normed_BLD = modulated_norm(x_BLD, history_tokens, shift_2D, scale_2D, self.config.eps)
        if self.compiled:
            table_LP = torch.view_as_real(table_LP)  # torch.compile fuses no complex numbers
            attend = self._timed(attend, x_BLD, x_BLD.shape[1])
            attend_last = self._timed(attend_last, x_BLD, x_BLD.shape[1] - history_tokens)
        for block, modulation, text_kv in zip(self._blocks(), modulations, text, strict=True):
            last = modulation is modulations[-1]
            x_BLD, normed_BLD = block(
                x_BLD,
                normed_BLD,
                modulation,
                history_tokens,
                table_LP,
                text_kv,
                noisy_only=last,
                attend=attend_last if last else attend,
            )
        out_BLF: torch.Tensor = self.proj_out(normed_BLD)
        return out_BLF

    def _timed(self, attend: AttendFn, x_BLD: torch.Tensor, queries: int) -> AttendFn:
        """The fastest kernel in place of `sdpa`, which cannot time any inside of a compiled block."""
        if attend is not sdpa or not x_BLD.is_cuda:
            return attend
        batch, tokens, _ = x_BLD.shape
        head = (self.config.num_attention_heads, self.config.attention_head_dim)
        q_shape, k_shape = (torch.Size((batch, count, *head)) for count in (queries, tokens))
        return CHOOSER.fastest_for(q_shape, k_shape, x_BLD.dtype, x_BLD.device)

    def _blocks(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]

    @torch.inference_mode(False)  # it is kept, and a forward with gradients may be the next to use it
    @torch.no_grad()
    def _rotary(self, height: int, width: int, history_height: int, history_width: int, anchored: bool) -> torch.Tensor:
        """(L, P) rotations of [long, mid, anchor + short, noisy] tokens for the given latent sizes.

        The anchor is at the first position; without it, all positions before the noisy frames are recent frames.
        """
        long, mid, short = HISTORY_FRAMES
        sizes = (1, long, mid, short) if anchored else (0, long, mid, short + 1)
        device = self.proj_out.weight.device
        frames = torch.arange(sum(sizes) + LATENT_FRAMES_PER_CHUNK, device=device)
        anchor, at_long, at_mid, at_short, noisy = frames.tensor_split(_ends(sizes))
        _, patch_h, patch_w = self.config.patch_size
        grid = (history_height // patch_h, history_width // patch_w)
        args = (self.config.rope_dim, self.config.rope_theta)
        return torch.cat(
            [
                rotary_table(at_long, *grid, *args, pool=4),
                rotary_table(at_mid, *grid, *args, pool=2),
                rotary_table(torch.cat([anchor, at_short]), *grid, *args),
                rotary_table(noisy, height // patch_h, width // patch_w, *args),
            ]
        )


def _fold_padding(prompt_embeds_BLD: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The embeddings up to the first row of the zeros that all of them end with, and how many such rows there were."""
    used = prompt_embeds_BLD.ne(0).any(dim=-1).any(dim=0).nonzero()
    kept = int(used[-1]) + 1 if len(used) else 0
    padding = prompt_embeds_BLD.shape[1] - kept
    return prompt_embeds_BLD[:, : kept + 1], max(padding, 1)


def _ends(sizes: tuple[int, ...]) -> list[int]:
    return list(accumulate(sizes))


def _patch_embedding(channels: int, dim: int, patch: tuple[int, int, int], scale: int) -> nn.Conv3d:
    t, h, w = (scale * size for size in patch)
    return nn.Conv3d(channels, dim, kernel_size=(t, h, w))


def _patches(x_BCThw: torch.Tensor, embedding: nn.Conv3d) -> torch.Tensor:
    """A convolution whose stride is its kernel, as one matrix product: (B, L, D)."""
    t, h, w = embedding.kernel_size
    x = pad_to_multiple(x_BCThw, (t, h, w))
    x = x.unfold(2, t, t).unfold(3, h, h).unfold(4, w, w)  # B C T' h' w' t h w
    patches = x.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4).flatten(1, 3)
    return F.linear(patches, embedding.weight.flatten(1), embedding.bias)


def unpatchify(x_BLF: torch.Tensor, shape: torch.Size, patch: tuple[int, int, int]) -> torch.Tensor:
    """Tokens (B, L, F = C * patch volume) to latents of this shape, (B, C, T, h, w)."""
    batch, _, frames, height, width = shape
    grid = (frames // patch[0], height // patch[1], width // patch[2])
    x = x_BLF.view(batch, *grid, *patch, -1)  # B T' h' w' t h w C
    return x.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(batch, -1, frames, height, width)
