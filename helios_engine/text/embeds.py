"""Prompt embeddings between processes. Only the rows of the prompt's own tokens travel; padding is put back afterwards.

Legend: n prompt tokens, D text width.
"""

from collections.abc import Mapping, Sequence

import torch
from safetensors.torch import load, save

from helios_engine.prompts import ScheduledPrompt, prompt_weights

MAX_PROMPT_TOKENS = 512
"""Rows of padded prompt embeddings. Longer prompts are cut, shorter ones are padded with zeros."""


def trim(embeds: torch.Tensor) -> torch.Tensor:
    """(512, D) to (n, D): drops the zero rows behind the prompt's tokens. At least one row stays."""
    used = embeds.ne(0).any(dim=-1).nonzero()
    return embeds[: int(used[-1]) + 1 if len(used) else 1].clone()


def pad(embeds_nD: torch.Tensor) -> torch.Tensor:
    """(n, D) to (1, 512, D), with zeros."""
    return torch.nn.functional.pad(embeds_nD, (0, 0, 0, MAX_PROMPT_TOKENS - len(embeds_nD)))[None]


def blend(embeds: Mapping[int, torch.Tensor], weights: Mapping[int, float]) -> torch.Tensor:
    """The weighted sum of prompt embeddings (n, D), each with its own n: (longest n, D) in their dtype.

    Both mappings go by the number of the prompt. The sum is made in float32, in the order of the numbers.
    """
    if len(weights) == 1:
        return embeds[next(iter(weights))]
    longest = max(len(embeds[number]) for number in weights)
    first = embeds[next(iter(weights))]
    total = torch.zeros(longest, first.shape[1])
    for number, weight in sorted(weights.items()):
        total[: len(embeds[number])].add_(embeds[number].float(), alpha=weight)
    return total.to(first.dtype)


def chunk_embeds(embeds: Mapping[int, torch.Tensor], schedule: Sequence[ScheduledPrompt], chunk: int) -> torch.Tensor:
    """The prompt embeddings (n, D) that `chunk` is conditioned on.

    embeds: number 0 is the initial prompt, number i the schedule's i-th entry; (n, D) each with its own n.
    """
    return blend(embeds, prompt_weights(schedule, chunk))


def to_bytes(embeds_nD: torch.Tensor) -> bytes:
    """Serialises with safetensors; `from_bytes` restores it bit for bit."""
    data: bytes = save({"prompt_embeds": embeds_nD})
    return data


def from_bytes(data: bytes) -> torch.Tensor:
    """Prompt embeddings (n, D) that `to_bytes` has serialised."""
    embeds: torch.Tensor = load(data)["prompt_embeds"]
    return embeds
