"""What there is to do, as the job store counts it: in chunks, for chunks are what replicas make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from helios_engine.request import FRAMES_PER_CHUNK

JOBS_COUNTED = 100
"""Queued jobs that a count looks at, spread over the accounts in line; those behind them are taken to be alike."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of one model.

    A job is live when someone waits for each of its chunks: a session's, an open-ended or an interactive one. Live jobs
    are to be made as fast as they play, all others some time; so chunks are counted for the others, a rate for those.
    """

    queued_jobs: int = 0
    """Jobs that wait for a dispatcher, live ones too; paused ones not."""
    queued_chunks: int = 0
    """Missing chunks of those that are not live."""
    running_jobs: int = 0
    """Jobs that have a chunk to make now: not paused, not being published."""
    running_chunks: int = 0
    paused_jobs: int = 0
    live_chunks_per_s: float = 0.0
    """What the live jobs need, queued and running: the sum of their fps/33."""
    pace_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds that a chunk takes, by stage: a moving average over all dispatchers' chunks. Empty: none measured yet."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What was measured since the last report: chunks of a stage, and their mean time."""

    stage: str
    chunks: int
    seconds: float


def work_from_answer(answer: Sequence[str]) -> Work:
    """The answer of work.lua."""
    queued_jobs, queued_chunks, running_jobs, running_chunks, paused, fps = map(float, answer[:6])
    return Work(
        queued_jobs=round(queued_jobs),
        queued_chunks=round(queued_chunks),
        running_jobs=round(running_jobs),
        running_chunks=round(running_chunks),
        paused_jobs=round(paused),
        live_chunks_per_s=fps / FRAMES_PER_CHUNK,
        pace_s={stage: float(seconds) for stage, seconds in zip(answer[6::2], answer[7::2], strict=True)},
    )
