"""What the job store holds, as frozen records. Times are Unix seconds by the Redis server's clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from helios_engine.prompts import ScheduledPrompt
from helios_services.jobs.state import JobState


class Priority(StrEnum):
    """Queue order: all interactive jobs before all normal ones before all batch ones."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BATCH = "batch"


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What a client asked for. `params`: the fields of helios_engine's GenerationRequest, all filled in.

    chunks_total: 0 for an open-ended job. image_id, video_id: uploads to start from. continue_from: the job that this
    one continues. session: a client keeps the job alive; it is stopped when the client has gone. tenant: whose it is.
    """

    model: str
    params: dict[str, Any]
    chunks_total: int
    priority: Priority = Priority.NORMAL
    labels: dict[str, str] = field(default_factory=dict)
    image_id: str = ""
    video_id: str = ""
    continue_from: str = ""
    session: bool = False
    tenant: str = ""
    timeout_s: float | None = None
    """The job fails unless it has ended this long after it was accepted."""
    queue_timeout_s: float | None = None
    """The job fails unless a worker has it this long after it was accepted."""
    webhook_url: str = ""

    @property
    def media_ids(self) -> tuple[str, ...]:
        """The uploads that the job needs."""
        return tuple(media_id for media_id in (self.image_id, self.video_id) if media_id)

    @property
    def upload(self) -> str:
        """What kind of upload the job starts from: image, video or none ("")."""
        return "image" if self.image_id else "video" if self.video_id else ""


@dataclass(frozen=True, kw_only=True)
class Account:
    """Whom a job is counted for, and what that one may have. None: no limit of its own.

    weight: share of the chunks when several accounts want them. Every limit holds over all gateways of a store.
    """

    id: str = ""
    weight: float = 1.0
    submits_per_minute: float | None = None
    max_queued: int | None = None
    max_running: int | None = None
    video_minutes_per_day: float | None = None
    """Charges of all chunks that start on a UTC day, in minutes of default video (charge.py)."""
    max_uploads: int | None = None
    max_upload_bytes: int | None = None


NOBODY = Account()
"""Where no keys are asked for, all jobs are counted together."""


@dataclass(frozen=True, kw_only=True)
class JobFailure:
    """Why a job failed: a stable reason ("WORKER_LOST", "GENERATION_FAILED", …) and a message for people."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the store knows it. `revision` grows with every change.

    chunks_total: 0 while an open-ended job has not been stopped. first_chunk: the first that is still kept.
    prompt_updates: prompts that came after submission, in the order of their arrival. trace: W3C traceparent of
    the call that submitted it.
    The summary of a job, as lists have it and as it is after a cancelled or failed end, has no prompts.
    """

    id: str
    spec: JobSpec
    state: JobState
    chunks_total: int
    chunks_done: int
    attempts: int
    revision: int
    created_s: float
    started_s: float | None = None
    ended_s: float | None = None
    error: JobFailure | None = None
    artifact: str = ""
    video_bytes: int = 0
    first_chunk: int = 0
    paused: bool = False
    prompt_updates: tuple[ScheduledPrompt, ...] = ()
    trace: str = ""
    account: str = ""
    deadline_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A worker's right to a job. `token` is the lease token: every write with an older one is refused."""

    job_id: str
    token: int
    worker_id: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claimed job: its lease, its record, and the checkpoint to resume from (None: start at chunk 0).

    The checkpoint of a job that continues another and has no chunk yet is the other's. prompt_embeds: by `prompt_key`.
    """

    lease: Lease
    job: Job
    checkpoint: bytes | None
    prompt_embeds: Mapping[str, bytes]
    queue_wait_s: float


class Verdict(StrEnum):
    """What a worker is told before it starts a chunk."""

    GO = "ok"
    PAUSED = "paused"
    AHEAD = "ahead"
    """The session's client has too many chunks to read yet."""
    OUTRANKED = "outranked"
    """Another job should have this one's worker."""
    STOPPED = "stopped"
    """The chunks made so far are all the job will have."""


ASIDE = (Verdict.OUTRANKED, Verdict.PAUSED, Verdict.AHEAD)
"""The job does not go on now, and its worker is for others."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a worker is told before it starts a chunk. left_s: until the job's deadline, if it has one."""

    verdict: Verdict
    prompt_updates: tuple[ScheduledPrompt, ...] = ()
    left_s: float | None = None


class Control(StrEnum):
    """What a client can ask of a job that has not ended."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class Media:
    """An upload. `name`: of its file in the media folder."""

    id: str
    name: str
    content_type: str
    size_bytes: int
    expire_s: float
    tenant: str = ""


@dataclass(frozen=True, kw_only=True)
class DueWebhook:
    """A webhook that is to be called now. event: names the job's end that it tells of. tries: this one included.

    lane: the tenant and the place that it goes to, among whose webhooks it waits.
    """

    event: str
    job_id: str
    tries: int
    lane: str


@dataclass(frozen=True, kw_only=True)
class ChunkRecord:
    """One chunk of the chunk log. `stage_s`: seconds by stage (queue, text, condition, denoise, decode, encode)."""

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
