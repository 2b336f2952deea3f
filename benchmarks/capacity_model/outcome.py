"""What a simulation says."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.capacity_model.inputs import Rank


@dataclass(kw_only=True)
class Tally:
    """What happened to the jobs of one rank.

    Jobs that still wait at the end count with their waits so far. Under overload the waits would look short otherwise.
    """

    waits_s: list[float] = field(default_factory=list)
    first_chunks_s: list[float] = field(default_factory=list)
    chunks: int = 0
    late_chunks: int = 0
    stall_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the jobs of one rank saw, or of all. Seconds; misses: chunks that a playing viewer had to wait for."""

    jobs: int
    queue_wait_p50_s: float
    queue_wait_p99_s: float
    first_chunk_p50_s: float
    first_chunk_p99_s: float
    chunks: int
    missed_share: float
    stall_s: float

    @classmethod
    def of(cls, tallies: Sequence[Tally]) -> "Service":
        """The service that the jobs of these tallies had, taken together."""
        waits = sorted(wait for tally in tallies for wait in tally.waits_s)
        firsts = sorted(first for tally in tallies for first in tally.first_chunks_s)
        chunks = sum(tally.chunks for tally in tallies)
        return cls(
            jobs=len(waits),
            queue_wait_p50_s=percentile(waits, 50),
            queue_wait_p99_s=percentile(waits, 99),
            first_chunk_p50_s=percentile(firsts, 50),
            first_chunk_p99_s=percentile(firsts, 99),
            chunks=chunks,
            missed_share=sum(tally.late_chunks for tally in tallies) / chunks if chunks else 0.0,
            stall_s=sum(tally.stall_s for tally in tallies),
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one simulation."""

    every: Service
    ranks: dict[str, Service]
    chunks_per_s: float
    denoiser_utilisation: float
    decoder_utilisation: float
    denoisers_mean: float
    decoders_mean: float
    jobs: dict[str, int]
    """How many in the whole run: arrived, succeeded, failed, refused, unfinished."""
    mean_wait_s: float
    preemptions: int
    lost_calls: int
    end_s: float
    """When the simulation ended."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def tallies() -> dict[Rank, Tally]:
    """Empty ones."""
    return {rank: Tally() for rank in Rank}


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Nearest rank; 0 of nothing."""
    if not ordered:
        return 0.0
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


def job_counts(ends: Counter[str], arrived: int) -> dict[str, int]:
    """How the jobs ended."""
    known = {name: ends[name] for name in ("succeeded", "failed", "refused")}
    return {"arrived": arrived, **known, "unfinished": arrived - sum(known.values())}
