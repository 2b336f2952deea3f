"""What the job store holds, as frozen records. Times are Unix seconds by the Redis server's clock."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from helios_services.jobs.state import JobState


class Priority(StrEnum):
    """Queue order: all interactive jobs before all normal ones before all batch ones."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BATCH = "batch"


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What a client asked for. `params`: the fields of helios_engine's GenerationRequest, all filled in."""

    model: str
    params: dict[str, Any]
    chunks_total: int
    priority: Priority = Priority.NORMAL
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class JobFailure:
    """Why a job failed: a stable reason ("WORKER_LOST", "GENERATION_FAILED", …) and a message for people."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the store knows it. `revision` grows with every change."""

    id: str
    spec: JobSpec
    state: JobState
    chunks_done: int
    attempts: int
    revision: int
    created_s: float
    started_s: float | None = None
    ended_s: float | None = None
    error: JobFailure | None = None
    artifact: str = ""
    video_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A worker's right to a job. `token` is the fencing token: every write with an older one is refused."""

    job_id: str
    token: int
    worker_id: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claimed job: its lease, its record, and the checkpoint to resume from (None: start at chunk 0)."""

    lease: Lease
    job: Job
    checkpoint: bytes | None
    prompt_embeds: bytes | None
    queue_wait_s: float


@dataclass(frozen=True, kw_only=True)
class ChunkRecord:
    """One chunk of the chunk log. `stage_s`: seconds by stage (queue, text, denoise, decode, encode)."""

    index: int
    num_frames: int
    start_s: float
    duration_s: float
    size_bytes: int
    stage_s: dict[str, float]
    ready_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class JobPage:
    """A page of jobs, newest first; `next_cursor` is empty on the last page."""

    jobs: list[Job]
    next_cursor: str
