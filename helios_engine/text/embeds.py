"""Prompt embeddings between processes: only the prompt's own tokens travel, padding is put back where it is needed."""

from collections.abc import Mapping, Sequence

import torch
from safetensors.torch import load, save

from helios_engine.prompts import ScheduledPrompt, prompt_weights

MAX_TOKENS = 512
"""Length of every prompt embedding; longer prompts are cut, shorter ones padded with zeros."""


def trim(embeds: torch.Tensor) -> torch.Tensor:
    """(512, D) to (n, D): without the zero rows behind the prompt's tokens."""
    used = embeds.ne(0).any(dim=-1).nonzero()
    return embeds[: int(used[-1]) + 1 if len(used) else 1].clone()


def pad(tokens: torch.Tensor) -> torch.Tensor:
    """(n, D) to (1, 512, D)."""
    return torch.nn.functional.pad(tokens, (0, 0, 0, MAX_TOKENS - len(tokens)))[None]


def blend(tokens: Mapping[int, torch.Tensor], weights: Mapping[int, float]) -> torch.Tensor:
    """The weighted sum of some prompts' tokens, (n, D), in their dtype; n is the longest prompt's."""
    if len(weights) == 1:
        return tokens[next(iter(weights))]
    longest = max(len(tokens[number]) for number in weights)
    first = tokens[next(iter(weights))]
    total = torch.zeros(longest, first.shape[1])
    for number, weight in sorted(weights.items()):
        total[: len(tokens[number])].add_(tokens[number].float(), alpha=weight)
    return total.to(first.dtype)


def chunk_tokens(tokens: Mapping[int, torch.Tensor], schedule: Sequence[ScheduledPrompt], chunk: int) -> torch.Tensor:
    """What `chunk` is conditioned on, (n, D). tokens: of the initial prompt (0) and the schedule's entries (1, …)."""
    return blend(tokens, prompt_weights(schedule, chunk))


def to_bytes(tokens: torch.Tensor) -> bytes:
    """Serialises with safetensors; `from_bytes` restores it bit for bit."""
    data: bytes = save({"prompt_embeds": tokens})
    return data


def from_bytes(data: bytes) -> torch.Tensor:
    """See `to_bytes`."""
    tokens: torch.Tensor = load(data)["prompt_embeds"]
    return tokens
