"""Text encoder, denoiser and VAE in one process: the same parts that the service composes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch
from numpy.typing import NDArray

from helios_engine.checkpoint import open_checkpoint
from helios_engine.loading.denoiser import load_denoiser
from helios_engine.loading.text import load_text_encoder
from helios_engine.loading.vae import load_decoder, load_encoder
from helios_engine.options import VariantName
from helios_engine.planning.one_process import all_on, for_this_machine
from helios_engine.request import GenerationRequest
from helios_engine.sampling.conditioning import conditioned_state
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState
from helios_engine.text.embeds import chunk_embeds, pad
from helios_engine.text.encoder import TextEncoder
from helios_engine.vae.decoder import VAEDecoder
from helios_engine.vae.encoder import VAEEncoder
from helios_engine.variants import resolve

TimedFn = Callable[[str], AbstractContextManager[object]]
"""Given the kind of work, "text" or "denoise": the context that it is done in, with which callers time it."""


@dataclass(frozen=True, kw_only=True)
class DenoisedChunk:
    """One chunk before it is decoded. latents, state: see `Chunk`."""

    index: int
    latents: torch.Tensor
    state: DenoiseState


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One generated chunk.

    latents: (1, 16, 9, H/8, W/8) float32, normalised. frames: (33, H, W, 3) uint8. state: what the next chunk is made
    from; after the last chunk, what a continuation starts from.
    """

    index: int
    latents: torch.Tensor
    frames: NDArray[np.uint8]
    state: DenoiseState


class HeliosPipeline:
    """Generates video chunk by chunk in this process."""

    def __init__(
        self,
        variant: VariantName,
        text_encoder: TextEncoder,
        denoiser: Denoiser,
        decoder: VAEDecoder,
        encoder: VAEEncoder,
    ) -> None:
        self.variant = variant
        self.text_encoder, self.denoiser, self.decoder, self.encoder = text_encoder, denoiser, decoder, encoder

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike[str],
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        loras: Mapping[str, str | PathLike[str]] | None = None,
        size: tuple[int, int] = (384, 640),
    ) -> "HeliosPipeline":
        """Loads a checkpoint folder in the published diffusers layout.

        device: None: the first GPU, with what does not fit in host memory or on the CPU, as `helios plan` says; without
        a GPU the CPU, unless the model is of full size. dtype: None: bfloat16 on a GPU, float32 on a CPU. loras:
        adapter files by the names that requests use. size: height and width of the largest video to have room for.
        Raises CheckpointError, and DoesNotFit where the machine cannot hold the model.
        """
        checkpoint = open_checkpoint(path)
        if device is None:
            chosen = for_this_machine(checkpoint, size, dtype, (loras or {}).values())
        else:
            chosen = all_on(device, dtype)
        text, denoiser, decoder, as_torch = chosen.text, chosen.denoiser, chosen.decoder, getattr(torch, chosen.dtype)
        activations = chosen.activation_budget_bytes
        return cls(
            checkpoint.variant,
            load_text_encoder(path, device=text, dtype=as_torch),
            load_denoiser(
                path,
                device=denoiser,
                dtype=as_torch,
                loras=loras,
                offload_budget_bytes=chosen.offload_budget_bytes,
            ),
            load_decoder(
                path,
                device=decoder,
                dtype=getattr(torch, chosen.vae_dtype),
                activation_budget_bytes=activations,
            ),
            load_encoder(path, device=decoder, activation_budget_bytes=activations),
        )

    def generate(self, request: GenerationRequest, *, continue_from: DenoiseState | None = None) -> Iterator[Chunk]:
        """Yields the request's chunks in order; each is made when it is asked for.

        continue_from: the state after another video's last chunk; the chunks are then those that a longer video would
        have had. Raises InvalidField for what this model does not take; ValueError for a video of another size.
        """
        request = resolve(request, self.variant)
        state = self._first_state(request) if continue_from is None else continue_from.continued(request)
        for made in self.denoise(request, state):
            frames = self.decoder.decode(made.latents)
            yield Chunk(index=made.index, latents=made.latents, frames=frames, state=made.state)

    def denoise(
        self, request: GenerationRequest, state: DenoiseState, *, timed: TimedFn = lambda work: nullcontext()
    ) -> Iterator[DenoisedChunk]:
        """Yields the chunks' latents in order, for callers that decode them in a way of their own.

        request: with the variant's defaults filled in (`resolve`). state: what its first chunk is made from.
        """
        prompts = [request.prompt, *(entry.prompt for entry in request.prompt_schedule)]
        with timed("text"):
            encoded = {number: self.text_encoder.encode([prompt])[0] for number, prompt in enumerate(prompts)}
            negative = self.text_encoder.encode([request.negative_prompt]) if request.guided else None
        while (index := state.chunks_made) < request.num_chunks:
            embeds = pad(chunk_embeds(encoded, request.prompt_schedule, index))
            with timed("denoise"):
                latents, state = self.denoiser.denoise_chunk(state, embeds, negative)
            yield DenoisedChunk(index=index, latents=latents, state=state)

    def _first_state(self, request: GenerationRequest) -> DenoiseState:
        if request.image is not None:
            return conditioned_state(request, self.encoder.condition_on_image(request.image))
        if request.video is not None:
            return conditioned_state(request, self.encoder.condition_on_video(request.video[0], request.video))
        return DenoiseState.initial(request)
