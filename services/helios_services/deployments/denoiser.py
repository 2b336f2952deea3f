"""The denoiser replica: one chunk per call, no memory of jobs."""

import time

import torch

from helios_engine.checkpoint import open_checkpoint
from helios_engine.denoiser import Denoiser
from helios_engine.embeds import pad
from helios_engine.state import DenoiseState
from helios_services.config import ServiceConfig, check_variant
from helios_services.deployments.stages import Denoised
from helios_services.deployments.torch_replica import TorchReplica

GB = 1_000_000_000


def load_denoiser(config: ServiceConfig, device: torch.device) -> Denoiser:
    """The denoiser that the configuration describes. Raises CheckpointError, ConfigError for another variant."""
    options = config.denoiser
    check_variant(config, open_checkpoint(config.model.checkpoint).variant)
    return Denoiser.from_pretrained(
        config.model.checkpoint,
        device=device,
        dtype=getattr(torch, config.model.dtype),
        prompt_cache_entries=options.prompt_cache_entries,
        guidance_batching=options.guidance_batching,
        offload_budget_bytes=None if options.offload_budget_gb is None else int(options.offload_budget_gb * GB),
        loras=config.model.loras,
        merged_loras=tuple(config.model.merged_loras.items()),
    )


class DenoiserReplica(TorchReplica):
    """The DiT on one device. Any replica can make any chunk: the state says all."""

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config, config.denoiser)
        self._denoiser = load_denoiser(config, self.device)

    async def denoise_chunk(
        self,
        previous: Denoised | DenoiseState,
        prompt_tokens: torch.Tensor,
        negative_tokens: torch.Tensor | None = None,
    ) -> Denoised:
        """Makes the chunk after `previous`. negative_tokens: with guidance only."""
        state = previous if isinstance(previous, DenoiseState) else previous.state
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
