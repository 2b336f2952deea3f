"""What the parts of a model take, in bytes: from its configurations, by modules without memory (torch's meta device).

Weights are exact. Activations are upper bounds; tests hold both to what torch allocates. Contexts and workspaces are
allowances: nothing here has been measured on a GPU yet.
"""

from collections.abc import Mapping
from copy import copy
from functools import cached_property
from typing import get_args

import torch
from torch import nn

from helios_engine.accelerate.memory import forward_bytes
from helios_engine.checkpoint import Checkpoint
from helios_engine.configs import TransformerConfig, VAEConfig
from helios_engine.loading.shapes import shapes
from helios_engine.loading.text import empty_model
from helios_engine.model.transformer import HeliosTransformer, parameter_dtype
from helios_engine.offload.packing import packing
from helios_engine.options import DtypeName, VAEDtypeName
from helios_engine.request import LATENT_FRAMES_PER_CHUNK
from helios_engine.text.embeds import MAX_PROMPT_TOKENS
from helios_engine.vae.decoder import WanDecoder
from helios_engine.vae.encoder import WanEncoder
from helios_engine.vae.slices import slice_bytes

CONTEXT_BYTES = 600_000_000
"""What a process on a GPU takes before any tensor: CUDA's context, code, and the libraries' handles."""
WORKSPACE_BYTES = 1_000_000_000
"""What cuDNN takes for the VAE's convolutions."""
PIXELS_OF_A_LATENT = 64


class Needs:
    """A model and the size of video (pixels) that it is to make.

    text: shapes of the text encoder's parameters by name. guided: whether each step asks the model twice (Base, Mid).
    adapter_bytes: files of LoRA adapters that requests may name.
    """

    def __init__(
        self,
        transformer: TransformerConfig,
        vae: VAEConfig,
        text: Mapping[str, torch.Size],
        *,
        guided: bool,
        height: int,
        width: int,
        adapter_bytes: int = 0,
    ) -> None:
        self.config, self.guided = transformer, guided
        self.height, self.width, self.adapter_bytes = height, width, adapter_bytes
        with torch.device("meta"):
            self._transformer = HeliosTransformer(transformer)
            decoder, encoder = WanDecoder(vae), WanEncoder(vae)
        self._decoder, self._encoder = list(decoder.footprints()), list(encoder.footprints())
        self._vae_parameters = _numel(decoder), _numel(encoder)
        self._text = text
        self._blocks: dict[DtypeName, tuple[int, ...]] = {}

    @classmethod
    def of(cls, checkpoint: Checkpoint, *, height: int, width: int, adapter_bytes: int = 0) -> "Needs":
        """What a checkpoint's model needs; its weights are not read. Raises CheckpointError."""
        return cls(
            checkpoint.transformer,
            checkpoint.vae,
            shapes(empty_model(checkpoint)),
            guided=checkpoint.variant != "distilled",
            height=height,
            width=width,
            adapter_bytes=adapter_bytes,
        )

    def sized(self, height: int, width: int) -> "Needs":
        """What the same model needs for another size of video."""
        other = copy(self)
        other.height, other.width = height, width
        return other

    @cached_property
    def parameters(self) -> int:
        """How many parameters the DiT has."""
        return _numel(self._transformer)

    def transformer_weights(self, dtype: DtypeName) -> int:
        """In GPU or host memory. With fp8 also: they are loaded before they become smaller."""
        return sum(self._weights[dtype])

    def outside_blocks(self, dtype: DtypeName) -> int:
        """The part of these weights that stays on the GPU where blocks are offloaded."""
        return self._weights[dtype][0]

    @cached_property
    def _weights(self) -> Mapping[DtypeName, tuple[int, int]]:
        """Bytes outside of blocks, and in them."""
        found: dict[DtypeName, tuple[int, int]] = {}
        for dtype in get_args(DtypeName):
            sizes = [0, 0]
            for name, parameter in self._transformer.named_parameters():
                sizes[name.startswith("blocks.")] += parameter.numel() * parameter_dtype(name, _torch(dtype)).itemsize
            found[dtype] = sizes[0], sizes[1]
        return found

    def block_bytes(self, dtype: DtypeName) -> tuple[int, ...]:
        """What each block takes where blocks are offloaded, gaps of alignment included."""
        if dtype not in self._blocks:
            with torch.device("meta"):
                model = HeliosTransformer(self.config)
            for name, parameter in model.named_parameters():
                parameter.data = parameter.data.to(parameter_dtype(name, _torch(dtype)))
            self._blocks[dtype] = tuple(packing(block).size for block in model.blocks)
        return self._blocks[dtype]

    def forward(self, dtype: DtypeName, batch: int) -> int:
        """Activations of a step at the finest stage."""
        return forward_bytes(self.config, _torch(dtype).itemsize, self.height, self.width, batch)

    def prompts(self, dtype: DtypeName, entries: int) -> int:
        """Cross-attention keys and values of so many prompts."""
        each = 2 * self.config.num_layers * MAX_PROMPT_TOKENS * self.config.inner_dim * _torch(dtype).itemsize
        return entries * each * (2 if self.guided else 1)

    def text_weights(self, dtype: DtypeName) -> int:
        """The text encoder's weights."""
        return sum(shape.numel() for shape in self._text.values()) * _torch(dtype).itemsize

    def text_forward(self, dtype: DtypeName) -> int:
        """Activations of one prompt: a block's, and scores of attention, some of them in float32."""
        widths = [max(shape) for name, shape in self._text.items() if name.startswith("encoder.block.0.") and shape]
        heads = next(shape[1] for name, shape in self._text.items() if name.endswith("relative_attention_bias.weight"))
        scores = 4 * heads * MAX_PROMPT_TOKENS**2 * torch.float32.itemsize
        return scores + 10 * max(widths) * MAX_PROMPT_TOKENS * _torch(dtype).itemsize

    def vae_weights(self, dtype: VAEDtypeName) -> int:
        """The weights of both halves; the VAE encoder stays in float32."""
        decoder, encoder = self._vae_parameters
        return decoder * _torch(dtype).itemsize + encoder * torch.float32.itemsize

    def vae_least(self, dtype: VAEDtypeName) -> int:
        """Activations of the VAE with a latent frame at a time: the least that its budget can be."""
        return self._vae(dtype, 1)

    def vae_whole(self, dtype: VAEDtypeName) -> int:
        """Activations of the VAE with a whole chunk at a time."""
        return self._vae(dtype, LATENT_FRAMES_PER_CHUNK)

    def _vae(self, dtype: VAEDtypeName, frames: int) -> int:
        pixels, whole = self.height * self.width // PIXELS_OF_A_LATENT, frames == LATENT_FRAMES_PER_CHUNK
        return max(
            slice_bytes(half, frames, pixels, itemsize, whole=whole)
            for half, itemsize in ((self._decoder, _torch(dtype).itemsize), (self._encoder, torch.float32.itemsize))
        )


def _numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _torch(name: DtypeName | VAEDtypeName) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name)
    return dtype
