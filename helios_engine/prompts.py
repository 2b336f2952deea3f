"""Prompts over time: which prompts a chunk is conditioned on, and how strongly. Free of torch.

A prompt that takes over at chunk c within k chunks has the weights linspace(0, 1, k) in chunks c to c + k - 1 and 1
afterwards; the rest is what the chunk c would have had without it. So the first of those chunks is not changed yet, and
a prompt that arrives during a blend starts from where the blend stands. k = 0 takes over at once.
Source: interactive generation in the Helios paper (interpolated prompt embeddings, 3 steps by default).
"""

from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_INTERPOLATION_CHUNKS = 3
MAX_INTERPOLATION_CHUNKS = 30
"""Bounds how many prompts can take part in one chunk, whose embeddings must all be kept."""


@dataclass(frozen=True, kw_only=True)
class ScheduledPrompt:
    """A prompt that takes over from chunk `chunk_index` (from 0) on, interpolated over `interpolation_chunks`."""

    chunk_index: int
    prompt: str
    interpolation_chunks: int = DEFAULT_INTERPOLATION_CHUNKS


def prompt_weights(schedule: Sequence[ScheduledPrompt], chunk: int) -> dict[int, float]:
    """Weights, with sum 1, of the prompts in `chunk`: 0 is the initial prompt, n the schedule's n-th entry.

    schedule: in the order in which the entries were made; a later entry counts from the chunk it names.
    """
    weights: dict[int, float] = {}
    left, number = 1.0, len(schedule)
    while number and left:
        entry = schedule[number - 1]
        if entry.chunk_index <= chunk:
            share = _share(chunk - entry.chunk_index, entry.interpolation_chunks)
            if share:
                weights[number] = left * share
            # the rest is as it was, without this entry, in the chunk at which it came
            left, chunk = left * (1.0 - share), entry.chunk_index
        number -= 1
    return {0: left} | weights if left else weights


def _share(elapsed: int, chunks: int) -> float:
    if elapsed >= chunks:
        return 1.0
    return elapsed / (chunks - 1) if chunks > 1 else 0.0
