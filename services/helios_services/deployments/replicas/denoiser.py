"""The denoiser replica: one chunk per call, no memory of jobs."""

import time
from typing import Protocol

import torch

from helios_engine.sampling.state import DenoiseState
from helios_engine.text.embeds import pad
from helios_services.config import ServiceConfig
from helios_services.deployments.dispatch.stages import Denoised
from helios_services.deployments.dispatch.turns import Turn, Turns
from helios_services.deployments.replicas.load_denoiser import load_denoiser
from helios_services.deployments.replicas.torch_replica import TorchReplica

ANY_TIME = Turn()


class MakesChunks(Protocol):
    """A denoiser on one device or on several."""

    def denoise_chunk(
        self, state: DenoiseState, prompt_embeds: torch.Tensor, negative_prompt_embeds: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, DenoiseState]:
        """See `helios_engine.sampling.denoiser.Denoiser`."""


class DenoiserReplica(TorchReplica):
    """The DiT on one device. Any replica can make any chunk: the state says all."""

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config, config.denoiser)
        self._turns = Turns()
        self._denoiser = self.load(self._load, config)

    def _load(self, config: ServiceConfig) -> MakesChunks:
        return load_denoiser(config, self.device)

    async def denoise_chunk(
        self,
        previous: Denoised | DenoiseState,
        prompt_embeds: torch.Tensor,
        negative_prompt_embeds: torch.Tensor | None = None,
        turn: Turn = ANY_TIME,
    ) -> Denoised:
        """Makes the chunk after `previous`. negative_prompt_embeds: with guidance only. Raises Expired."""
        state = previous if isinstance(previous, DenoiseState) else previous.state
        async with self._turns.take(turn):
            return await self.run(self._denoise, state, prompt_embeds, negative_prompt_embeds)

    def _denoise(
        self, state: DenoiseState, prompt_embeds: torch.Tensor, negative_prompt_embeds: torch.Tensor | None
    ) -> Denoised:
        start = time.perf_counter()
        negative = None if negative_prompt_embeds is None else pad(negative_prompt_embeds)
        latents, state = self._denoiser.denoise_chunk(state, pad(prompt_embeds), negative)
        return Denoised(
            latents=latents, state=state, seconds=time.perf_counter() - start, memory_bytes=self.memory_bytes()
        )
