"""Text encoder, denoiser and VAE decoder in one process: the same three parts that the service composes."""

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch
from numpy.typing import NDArray

from helios_engine.denoiser import Denoiser
from helios_engine.request import GenerationRequest
from helios_engine.state import DenoiseState
from helios_engine.text import TextEncoder
from helios_engine.vae import VideoDecoder


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One generated chunk. latents: (1, 16, 9, H/8, W/8) float32, normalised; frames: (33, H, W, 3) uint8."""

    index: int
    latents: torch.Tensor
    frames: NDArray[np.uint8]


class HeliosPipeline:
    """Generates video chunk by chunk in this process."""

    def __init__(self, text_encoder: TextEncoder, denoiser: Denoiser, decoder: VideoDecoder) -> None:
        self.text_encoder, self.denoiser, self.decoder = text_encoder, denoiser, decoder

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike[str],
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ) -> "HeliosPipeline":
        """Loads a checkpoint folder in the published diffusers layout; the VAE in float32. Raises CheckpointError."""
        return cls(
            TextEncoder.from_pretrained(path, device=device, dtype=dtype),
            Denoiser.from_pretrained(path, device=device, dtype=dtype),
            VideoDecoder.from_pretrained(path, device=device),
        )

    def generate(self, request: GenerationRequest) -> Iterator[Chunk]:
        """Yields the request's chunks in order; each is made when it is asked for."""
        prompt_embeds = self.text_encoder.encode([request.prompt])
        state = DenoiseState.initial(request)
        while state.chunk_index < request.num_chunks:
            index = state.chunk_index
            latents, state = self.denoiser.denoise_chunk(state, prompt_embeds)
            yield Chunk(index=index, latents=latents, frames=self.decoder.decode(latents))
