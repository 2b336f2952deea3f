"""A job as the video that OpenAI's clients read."""

from typing import Any

from google.protobuf.json_format import MessageToDict

from helios_engine.request import FRAMES_PER_CHUNK
from helios_services.config import JobsConfig
from helios_services.jobs.records import Job
from helios_services.jobs.state import JobState
from helios_services.messages import job_message

STATUS = {
    JobState.QUEUED: "queued",
    JobState.RUNNING: "in_progress",
    JobState.PUBLISHING: "in_progress",
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "failed",
}
REMIXED = "remixed_from_video_id"
"""Label of a remix, naming its source."""


def video(job: Job, jobs: JobsConfig) -> dict[str, Any]:
    """The video. `helios` is the job as the gRPC API has it."""
    params = job.spec.params
    seconds = frames_of(job) / params["fps"]
    return {
        "id": job.id,
        "object": "video",
        "model": job.spec.model,
        "status": STATUS[job.state],
        "progress": progress(job),
        "created_at": int(job.created_s),
        "completed_at": int(job.ended_s) if job.ended_s is not None and job.state is JobState.SUCCEEDED else None,
        "expires_at": int(job.ended_s + jobs.job_ttl_s) if job.ended_s is not None else None,
        "prompt": params["prompt"] or None,
        "size": f"{params['width']}x{params['height']}",
        "seconds": f"{seconds:.3f}".rstrip("0").rstrip("."),
        "remixed_from_video_id": job.spec.labels.get(REMIXED),
        "error": _error(job),
        "helios": MessageToDict(job_message(job), preserving_proto_field_name=True),
    }


def frames_of(job: Job) -> int:
    """Frames that are delivered: whole chunks. Of an open-ended job, those so far."""
    return (job.chunks_total or job.chunks_done) * FRAMES_PER_CHUNK


def progress(job: Job) -> int:
    """Percent; 100 only once it is completed."""
    if job.state is JobState.SUCCEEDED:
        return 100
    return min(99, 100 * job.chunks_done // job.chunks_total) if job.chunks_total else 0


def _error(job: Job) -> dict[str, str] | None:
    if job.state is JobState.CANCELLED:
        return {"code": "cancelled", "message": "the job was cancelled"}
    if job.error is None:
        return None
    return {"code": job.error.reason.lower(), "message": job.error.message}
