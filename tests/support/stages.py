"""Stages of the service without Ray and without a model."""

import asyncio
from functools import cache
from typing import Any

import numpy as np
import torch

from helios_engine.request import GenerationRequest
from helios_engine.sampling.state import DenoiseState
from helios_services.deployments.dispatch.stages import Conditioned, Denoised, Embedded, Encoded
from helios_services.deployments.dispatch.turns import Turn
from helios_services.jobs.records import JobFailure, Media
from helios_services.media.encoder import EncodedChunk, EncoderSettings, encode_chunk


class QuickStages:
    """Quick and deterministic: a chunk's picture is a shade that follows from the state before it.

    moving: a light crosses the picture, from its left side to its right in each chunk.
    """

    moving = False

    async def reach(self, point: str) -> None:
        """Called before "condition <id>", "denoise <index>" and "decode <index>": subclasses wait or raise here."""

    async def embed(self, prompt: str) -> Embedded:
        """See Stages."""
        return Embedded(prompt_embeds=torch.full((2, 4), float(len(prompt))), seconds=0.5)

    async def condition(self, request: GenerationRequest, media: Media) -> Conditioned | JobFailure:
        """See Stages."""
        await self.reach(f"condition {media.id}")
        return Conditioned(state=DenoiseState.initial(request), seconds=0.125)

    def denoise(
        self, previous: Any, prompt_embeds: torch.Tensor, negative_prompt_embeds: torch.Tensor | None, turn: Turn
    ) -> Any:
        """See Stages."""

        async def call() -> Denoised:
            state = previous if isinstance(previous, DenoiseState) else previous.result().state
            await self.reach(f"denoise {state.chunks_made}")
            generator = state.generator()
            latents = torch.randn(1, 16, 9, *state.history.shape[-2:], generator=generator)
            return Denoised(latents=latents, state=state.advanced(latents, generator), seconds=0.25, memory_bytes=7)

        return asyncio.ensure_future(call())

    async def decode(self, denoised: Any, request: GenerationRequest) -> Encoded:
        """See Stages."""
        value = denoised if isinstance(denoised, Denoised) else denoised.result()
        index = value.state.chunks_made - 1
        await self.reach(f"decode {index}")
        shade = int(value.latents.flatten()[0].abs() * 50) % 200
        chunk = _encoded(self.moving, shade, index, request.fps, request.height, request.width)
        return Encoded(
            init_segment=chunk.init_segment,
            fragment=chunk.fragment,
            num_frames=33,
            decode_s=0.1,
            encode_s=0.05,
            memory_bytes=9,
        )

    def lost(self, error: BaseException) -> bool:
        """See Stages."""
        return False

    def unavailable(self, error: BaseException) -> bool:
        """See Stages."""
        return False

    async def absent(self) -> frozenset[str] | None:
        """See Stages."""
        return frozenset()


@cache
def _encoded(moving: bool, shade: int, index: int, fps: int, height: int, width: int) -> EncodedChunk:
    frames = np.full((33, height, width, 3), shade, dtype=np.uint8)
    if moving:
        y, x = np.mgrid[0:height, 0:width]
        for number, frame in enumerate(frames):
            light = 180 * np.exp(-((x - width * number / 33) ** 2 + (y - height / 2) ** 2) / (height / 4) ** 2)
            frame[:] = np.minimum(frame * [1.0, 0.6, 0.3] + light[..., None] * [1.0, 0.8, 0.4], 255)
    return encode_chunk(frames, index=index, fps=fps, settings=EncoderSettings())
