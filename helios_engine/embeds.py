"""Prompt embeddings between processes: only the prompt's own tokens travel, padding is put back where it is needed."""

import torch
from safetensors.torch import load, save

MAX_TOKENS = 512
"""Length of every prompt embedding; longer prompts are cut, shorter ones padded with zeros."""


def trim(embeds: torch.Tensor) -> torch.Tensor:
    """(512, D) to (n, D): without the zero rows behind the prompt's tokens."""
    used = embeds.ne(0).any(dim=-1).nonzero()
    return embeds[: int(used[-1]) + 1 if len(used) else 1].clone()


def pad(tokens: torch.Tensor) -> torch.Tensor:
    """(n, D) to (1, 512, D)."""
    return torch.nn.functional.pad(tokens, (0, 0, 0, MAX_TOKENS - len(tokens)))[None]


def to_bytes(tokens: torch.Tensor) -> bytes:
    """Serialises with safetensors; `from_bytes` restores it bit for bit."""
    data: bytes = save({"prompt_embeds": tokens})
    return data


def from_bytes(data: bytes) -> torch.Tensor:
    """See `to_bytes`."""
    tokens: torch.Tensor = load(data)["prompt_embeds"]
    return tokens
