"""The keys and values of the prompts that were used last."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from helios_engine.model.attention import TextKeysValues

Adapters = tuple[tuple[str, float], ...]


class _Entry(NamedTuple):
    embeds: torch.Tensor
    adapters: Adapters
    text: list[TextKeysValues]


class PromptCache:
    """Cross-attention keys and values of prompts, found by the embeddings' bits and the active adapters.

    entries: how many prompts are kept. Raises ValueError for fewer than one. The bits are compared with those of each
    prompt that is kept, which takes a fraction of the time of hashing, while a GPU has nothing to do.
    """

    def __init__(self, entries: int) -> None:
        if entries < 1:
            raise ValueError(f"prompt_cache_entries: {entries!r} is not allowed; allowed: an integer from 1")
        self._limit = entries
        self._entries: list[_Entry] = []  # the one used last is the last

    def get(
        self, embeds: torch.Tensor, adapters: Adapters, encode: Callable[[], list[TextKeysValues]]
    ) -> list[TextKeysValues]:
        """What `encode` makes for these embeddings, (B, 512, text_dim); it is called if nothing is kept for them.

        adapters: see `AdapterSet.active`.
        """
        on_cpu = embeds.cpu()
        for index, entry in enumerate(self._entries):
            if entry.adapters == adapters and _same_bits(entry.embeds, on_cpu):
                self._entries.append(self._entries.pop(index))
                return entry.text
        while len(self._entries) >= self._limit:
            del self._entries[0]  # before the new one takes memory
        self._entries.append(_Entry(on_cpu.clone(), adapters, encode()))
        return self._entries[-1].text

    def clear(self) -> None:
        """Forgets all prompts."""
        self._entries.clear()


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    # as integers: comparing bfloat16 takes six times as long, and says that -0 is 0
    words = (x.contiguous().flatten().view(torch.int64) for x in (one, other))
    return torch.equal(*words)
