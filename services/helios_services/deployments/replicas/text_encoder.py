"""The text encoder replica: one prompt at a time, and a cache of embeddings."""

import time
from collections import OrderedDict

import torch

from helios_engine.loading.text import load_text_encoder
from helios_engine.text.embeds import trim
from helios_engine.text.encoder import TextEncoder, clean_prompt
from helios_services.config import ServiceConfig
from helios_services.deployments.dispatch.stages import Embedded
from helios_services.deployments.replicas.torch_replica import TorchReplica


class TextEncoderReplica(TorchReplica):
    """UMT5 on one device."""

    def __init__(self, config: ServiceConfig) -> None:
        options = config.text_encoder
        super().__init__(config, options)
        self._encoder = self.load(self._load, config)
        self._cache: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._cache_entries = options.cache_entries

    def _load(self, config: ServiceConfig) -> TextEncoder:
        dtype = getattr(torch, config.dtype)
        return load_text_encoder(config.model.checkpoint, device=self.device, dtype=dtype)

    async def embed(self, prompt: str) -> Embedded:
        """Embeds one prompt. The same prompt gives the same bits, whatever else is embedded at the time."""
        start = time.perf_counter()
        cleaned = clean_prompt(prompt)
        if cleaned not in self._cache:
            # a pass of its own: the bits of a shared pass depend on the company, and a job's video must not
            self._cache[cleaned] = trim((await self.run(self._encoder.encode, [cleaned]))[0])
            while len(self._cache) > self._cache_entries:
                self._cache.popitem(last=False)
        self._cache.move_to_end(cleaned)
        return Embedded(prompt_embeds=self._cache[cleaned], seconds=time.perf_counter() - start)
