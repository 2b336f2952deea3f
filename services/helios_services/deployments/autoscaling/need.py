"""How many replicas the work needs: pure functions of numbers. docs/autoscaling.md has the formula in words.

Requests say little here: a job has one call in progress however many chunks are missing, a job in the queue none.
What counts is how long the missing chunks would take.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from helios_services.jobs.work import Work

STAGES = {"denoiser": ("denoise",), "decoder": ("decode", "encode"), "text-encoder": ("text",)}
"""Stages whose time is the deployment's, by deployment."""
PER_JOB = {"text-encoder"}
"""Deployments that a job calls at its start, not for each chunk."""
ROUNDING = 1e-9
"""This small a part of a replica comes from adding floats, and must not ask for one more."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What replicas of a deployment are for. Names as in helios_services.config.AutoscalingConfig.

    slots: jobs that the dispatchers drive at a time; a job has one chunk in progress.
    """

    deployment: str
    slots: int
    backlog_target_s: float
    live_utilization: float
    assumed_chunk_s: float

    def chunk_s(self, work: Work) -> float:
        """Seconds that one replica takes for a chunk (the text encoder: for a job)."""
        measured = sum(work.pace_s.get(stage, 0.0) for stage in STAGES[self.deployment])
        return measured or self.assumed_chunk_s

    def replicas(self, work: Work) -> int:
        """Replicas that the work needs at this moment, before bounds."""
        jobs = min(work.queued_jobs + work.running_jobs, self.slots)
        if jobs == 0:  # a paused job goes on at any moment, and its viewer should not wait for a model to load
            return min(work.paused_jobs, 1)
        if self.deployment in PER_JOB:
            rate, backlog = 0.0, work.queued_jobs
        else:
            rate, backlog = work.live_chunks_per_s, work.queued_chunks + work.running_chunks
        chunk_s = self.chunk_s(work)
        replicas = rate * chunk_s / self.live_utilization + backlog * chunk_s / self.backlog_target_s
        return min(max(math.ceil(replicas - ROUNDING), 1), jobs)


@dataclass
class Hold:
    """The largest number of a sliding window: replicas come at once and go when none of `window_s` needed them."""

    window_s: float
    _falling: deque[tuple[float, int]] = field(default_factory=deque)
    """(time, number): what the maximum will be as time goes on; times grow, numbers fall."""

    def __call__(self, now: float, number: int) -> int:
        """The largest number given in the last `window_s`, this one included."""
        while self._falling and self._falling[-1][1] <= number:
            self._falling.pop()
        self._falling.append((now, number))
        while self._falling[0][0] < now - self.window_s:
            self._falling.popleft()
        return self._falling[0][1]


class Scaler:
    """The decisions about one deployment, one after another."""

    def __init__(self, need: Need, downscale_delay_s: float) -> None:
        self._need, self._hold = need, Hold(downscale_delay_s)
        self._primed = False

    def __call__(self, now: float, work: Work | None, *, target: int, recent_calls: float) -> int:
        """Replicas wanted, before bounds.

        work: None while it is not known. target: replicas wanted so far. recent_calls: what Serve remembers of them.
        """
        if work is None:
            return target
        if not self._primed:  # a controller that has just started knows nothing of the delay before
            self._hold(now, target)
            self._primed = True
        replicas = self._hold(now, self._need.replicas(work))
        if replicas == 0 and recent_calls > 0:  # Serve would start one again as soon as the last is gone
            return min(target, 1)
        return replicas
