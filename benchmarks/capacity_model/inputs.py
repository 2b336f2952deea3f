"""What the model is given: stage times, the fleet, and who asks for what."""

from dataclasses import dataclass, field
from enum import IntEnum
from math import inf
from typing import Literal

from helios_engine.request import FRAMES_PER_CHUNK
from helios_services.config import DispatcherConfig, JobsConfig

Samples = tuple[float, ...]
"""Seconds, drawn with equal chance; one value is a constant."""
ServedBy = Literal["immediate", "serve"]


class Rank(IntEnum):
    """Queue order: the lower, the earlier. The service's priorities."""

    INTERACTIVE = 0
    NORMAL = 1
    BATCH = 2


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Seconds that one call of a stage takes, and what lies between the calls. `source`: where the figures are from.

    call_s: a replica is occupied for this much longer than its stage's own time (arguments in, result out).
    claim_s: from a free slot and a queued job to the job's start. begin_s: the script before each chunk.
    append_s: storing a chunk. publish_s: from the last chunk to the free slot.
    """

    denoise_s: Samples
    decode_s: Samples
    encode_s: Samples = (0.0,)
    text_s: Samples = (0.0,)
    call_s: float = 0.0
    claim_s: float = 0.0
    begin_s: float = 0.0
    append_s: float = 0.0
    publish_s: float = 0.0
    source: str = "given"


@dataclass(frozen=True, kw_only=True)
class ReplicaLoss:
    """Spot replicas: each dies after an exponential time. A lost call is noticed and repeated after `notice_s`."""

    mtbf_s: float = inf
    notice_s: float = 0.15
    max_losses: int = JobsConfig().max_attempts


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """The rule: denoisers = chunks per second needed / (chunks per second a replica makes * target utilisation).

    Needed are the chunks that came in over the last `window_s`, and the queued ones, to be worked off in `drain_s`.
    A change waits until it has been wanted for a delay, as in Ray Serve. Decoders keep their ratio to denoisers.
    """

    min_denoisers: int
    max_denoisers: int
    target_utilisation: float = 0.8
    interval_s: float = 5.0
    window_s: float = 60.0
    drain_s: float = 60.0
    upscale_delay_s: float = 5.0
    downscale_delay_s: float = 300.0


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """How many of what. slots: jobs driven at a time by all dispatchers; 0: as many as denoisers.

    router: "immediate" hands a waiting call to the first free replica; "serve" is Ray Serve's router, of which each
    dispatcher has one: it looks at two random replicas and, when both are busy, again after a growing pause.
    start_s: from the order of a replica, or the loss of one, to its first call. preemption: at chunk boundaries, by
    priority alone, which is the larger part of what the service does.
    """

    denoisers: int
    decoders: int
    text_encoders: int = 1
    slots: int = 0
    slots_per_dispatcher: int = DispatcherConfig().concurrent_jobs
    router: ServedBy = "immediate"
    start_s: float = 300.0
    preemption: bool = False
    max_queued: int = JobsConfig().max_queued
    denoiser_loss: ReplicaLoss = ReplicaLoss()
    decoder_loss: ReplicaLoss = ReplicaLoss()
    scaling: Scaling | None = None


@dataclass(frozen=True, kw_only=True)
class JobClass:
    """A kind of job. chunks: lengths, drawn with equal chance; for a live session its mean seconds are given instead.

    denoise_factor: of the stage time, for another number of steps. ahead_chunks: a session makes at most this many
    chunks before they are played; None, as the service is today: as fast as it can.
    """

    name: str
    rank: Rank
    share: float
    chunks: tuple[int, ...] = (1,)
    session_s: float = 0.0
    denoise_factor: float = 1.0
    ahead_chunks: int | None = None


@dataclass(frozen=True, kw_only=True)
class Playback:
    """A viewer: starts when `buffer_chunks` are there, then needs one chunk every 33 / fps seconds."""

    fps: int = 24
    buffer_chunks: int = 2

    @property
    def chunk_s(self) -> float:
        """Play time of a chunk."""
        return FRAMES_PER_CHUNK / self.fps


@dataclass(frozen=True, kw_only=True)
class Run:
    """One simulation. Figures are of jobs and time after `warmup_s`. drain: go on until every job has ended."""

    horizon_s: float = inf
    warmup_s: float = 0.0
    seed: int = 0
    drain: bool = False
    playback: Playback = field(default_factory=Playback)
