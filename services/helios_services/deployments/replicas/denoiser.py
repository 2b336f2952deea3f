"""The denoiser replica: one chunk per call, no memory of jobs."""

import time
from collections.abc import Callable

import torch

from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState
from helios_engine.text.embeds import pad
from helios_services.config import ServiceConfig
from helios_services.deployments.dispatch.stages import Denoised
from helios_services.deployments.dispatch.turns import Turn, Turns
from helios_services.deployments.ranks.group import RankGroup
from helios_services.deployments.replicas.load_denoiser import load_denoiser
from helios_services.deployments.replicas.torch_replica import TorchReplica

ANY_TIME = Turn()


class DenoiserReplica(TorchReplica):
    """The DiT on one device, or rank 0 of several. Any replica can make any chunk: the state says all."""

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config, config.denoiser)
        self._turns = Turns()
        alone = config.denoiser.parallel.world_size == 1
        load: Callable[[ServiceConfig, torch.device], Denoiser | RankGroup] = load_denoiser if alone else RankGroup
        self._denoiser = self.load(load, config, self.device)

    async def denoise_chunk(
        self,
        previous: Denoised | DenoiseState,
        prompt_tokens: torch.Tensor,
        negative_tokens: torch.Tensor | None = None,
        turn: Turn = ANY_TIME,
    ) -> Denoised:
        """Makes the chunk after `previous`. negative_tokens: with guidance only. Raises Expired."""
        state = previous if isinstance(previous, DenoiseState) else previous.state
        async with self._turns.take(turn):
            return await self.run(self._denoise, state, prompt_tokens, negative_tokens)

    def _denoise(
        self, state: DenoiseState, prompt_tokens: torch.Tensor, negative_tokens: torch.Tensor | None
    ) -> Denoised:
        start = time.perf_counter()
        negative = None if negative_tokens is None else pad(negative_tokens)
        latents, state = self._denoiser.denoise_chunk(state, pad(prompt_tokens), negative)
        return Denoised(
            latents=latents, state=state, seconds=time.perf_counter() - start, memory_bytes=self.memory_bytes()
        )

    async def __del__(self) -> None:
        """Called and awaited by Serve when the replica is shut down."""
        if isinstance(self._denoiser, RankGroup):
            await self.run(self._denoiser.close)
