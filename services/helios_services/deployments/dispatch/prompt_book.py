"""A job's prompts over time, and their embeddings as chunks come to need them."""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping

import torch

from helios_engine.prompts import ScheduledPrompt, prompt_weights
from helios_engine.text import embeds
from helios_services.jobs.records import Job

Encode = Callable[[str], Awaitable[torch.Tensor]]
Save = Callable[[str, bytes, set[str]], Awaitable[None]]


def prompt_key(prompt: str) -> str:
    """What a prompt's embedding is kept under."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:32]


class PromptBook:
    """Prompts by chunk. Holds, and keeps in the store, only embeddings that chunks to come may need.

    An embedding is made once and then read back: another batch of the text encoder could give other bits.
    """

    def __init__(self, job: Job, schedule: tuple[ScheduledPrompt, ...], kept: Mapping[str, bytes]) -> None:
        self._initial, self._scheduled = job.spec.params["prompt"], schedule
        self._updates = list(job.prompt_updates)
        self._embeds = {key: embeds.from_bytes(data) for key, data in kept.items()}

    @property
    def keys(self) -> set[str]:
        """Keys of the embeddings at hand."""
        return set(self._embeds)

    @property
    def updates(self) -> int:
        """Prompt updates that are known."""
        return len(self._updates)

    def add(self, updates: Iterable[ScheduledPrompt]) -> None:
        """Prompts that have arrived."""
        self._updates += updates

    async def of_chunk(self, chunk: int, encode: Encode, save: Save, always: str | None = None) -> torch.Tensor:
        """What `chunk` is conditioned on, (n, D). always: a prompt whose embedding is kept besides."""
        weights, prompts = self._weighted(chunk)
        # the chunk before may still be on its way into the store: a resumption would begin with it
        _, before = self._weighted(max(chunk - 1, 0))
        kept = [*prompts.values(), *before.values(), *([always] if always is not None else [])]
        needed = {prompt_key(prompt) for prompt in kept}
        for prompt in prompts.values():
            await self.of_prompt(prompt, encode, save, needed)
        self._embeds = {key: kept_embeds for key, kept_embeds in self._embeds.items() if key in needed}
        return embeds.blend({number: self._embeds[prompt_key(prompt)] for number, prompt in prompts.items()}, weights)

    def _weighted(self, chunk: int) -> tuple[dict[int, float], dict[int, str]]:
        """Weights and texts of the chunk's prompts, by number."""
        # updates and scheduled prompts take over in the order of their chunks; of equal ones, an update is the newer
        schedule = sorted([*self._scheduled, *self._updates], key=lambda entry: entry.chunk_index)
        weights = prompt_weights(schedule, chunk)
        return weights, {number: schedule[number - 1].prompt if number else self._initial for number in weights}

    async def of_prompt(self, prompt: str, encode: Encode, save: Save, keep: set[str]) -> torch.Tensor:
        """A single prompt's embedding. keep: keys of the embeddings that stay in the store."""
        key = prompt_key(prompt)
        if key not in self._embeds:
            self._embeds[key] = await encode(prompt)
            await save(key, embeds.to_bytes(self._embeds[key]), keep)
        return self._embeds[key]
