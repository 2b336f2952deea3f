"""Jobs and when they come: Poisson, at a rate that may change in steps, or a trace."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.capacity_model.inputs import JobClass, Playback, StageTimes


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A job as it comes in. session_s: how long its client stays; 0 for a job with a number of chunks.

    own_s: of a recorded job, the seconds of each chunk: denoising; decoding and encoding. Empty: drawn.
    """

    at_s: float
    kind: JobClass
    chunks: int
    session_s: float = 0.0
    own_s: tuple[tuple[float, float], ...] = ()


def poisson(
    rates: Sequence[tuple[float, float]], mix: Sequence[JobClass], *, until_s: float, seed: int
) -> Iterator[Arrival]:
    """rates: from when (s, ascending, the first 0) how many jobs per second."""
    random = Random(f"arrivals {seed}")
    shares = [kind.share for kind in mix]
    ends = [*(start for start, _ in rates[1:]), until_s]
    for (start, rate), end in zip(rates, ends, strict=True):
        now = start  # exponential gaps have no memory: a new rate may begin a new gap
        while rate > 0 and (now := now + random.expovariate(rate)) < min(end, until_s):
            kind = random.choices(mix, shares)[0]
            session_s = random.expovariate(1 / kind.session_s) if kind.session_s else 0.0
            yield Arrival(at_s=now, kind=kind, chunks=random.choice(kind.chunks), session_s=session_s)


def trace(times_s: Sequence[float], kinds: Sequence[JobClass], chunks: Sequence[int]) -> Iterator[Arrival]:
    """Jobs of a record: when, of which kind, how long."""
    for at_s, kind, count in zip(times_s, kinds, chunks, strict=True):
        yield Arrival(at_s=at_s, kind=kind, chunks=count)


def chunks_per_job(mix: Sequence[JobClass], times: StageTimes, playback: Playback) -> float:
    """Mean number of chunks."""
    return _mean(mix, [_chunks(kind, times, playback) for kind in mix])


def denoiser_s_per_job(mix: Sequence[JobClass], times: StageTimes, playback: Playback) -> float:
    """Mean seconds of a denoiser."""
    call_s = [mean(times.denoise_s) * kind.denoise_factor + times.call_s for kind in mix]
    return _mean(mix, [_chunks(kind, times, playback) * s for kind, s in zip(mix, call_s, strict=True)])


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)


def _chunks(kind: JobClass, times: StageTimes, playback: Playback) -> float:
    if not kind.session_s:
        return mean(kind.chunks)
    period_s = mean(times.denoise_s) * kind.denoise_factor + times.call_s + times.begin_s
    return kind.session_s / (period_s if kind.ahead_chunks is None else max(period_s, playback.chunk_s))


def _mean(mix: Sequence[JobClass], values: Sequence[float]) -> float:
    return sum(kind.share * value for kind, value in zip(mix, values, strict=True)) / sum(kind.share for kind in mix)
