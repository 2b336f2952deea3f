"""Who holds which tokens: computed from the counts on the host, alike on all ranks, so that no sizes are exchanged."""

from dataclasses import dataclass
from itertools import accumulate


def split_sizes(total: int, parts: int) -> tuple[int, ...]:
    """`total` in `parts` sizes that differ by one at most, the larger first. Sizes are 0 where total < parts."""
    size, larger = divmod(total, parts)
    return tuple(size + (part < larger) for part in range(parts))


def split_slices(sizes: tuple[int, ...]) -> tuple[slice, ...]:
    """The consecutive slices that have these sizes."""
    ends = tuple(accumulate(sizes))
    return tuple(slice(end - size, end) for size, end in zip(sizes, ends, strict=True))


@dataclass(frozen=True, kw_only=True)
class SequenceShards:
    """[history | noisy] tokens over the ranks of a context group.

    Each rank holds a contiguous piece of the history and a contiguous piece of the noisy tokens, in this order: so the
    work is balanced in the last block too, where only noisy tokens ask, and a rank's history tokens come first, as the
    two-row modulation needs it. Attention does not care in which order the keys of all ranks are put together.
    """

    history: tuple[int, ...]
    noisy: tuple[int, ...]

    @classmethod
    def split(cls, history_tokens: int, noisy_tokens: int, ranks: int) -> "SequenceShards":
        """The shards of this many tokens over this many ranks."""
        return cls(history=split_sizes(history_tokens, ranks), noisy=split_sizes(noisy_tokens, ranks))

    @property
    def all(self) -> tuple[int, ...]:
        """Tokens of each rank, history and noisy."""
        return tuple(history + noisy for history, noisy in zip(self.history, self.noisy, strict=True))

    def slices(self, rank: int) -> tuple[slice, slice]:
        """The rank's piece of the history tokens, and of the noisy tokens."""
        return split_slices(self.history)[rank], split_slices(self.noisy)[rank]
