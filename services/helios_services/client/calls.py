"""The calls that one answer ends: what to ask, and what the answer says. The streaming ones are in `courses`."""

import mimetypes
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from helios.v1 import video_generation_pb2 as pb
from helios_services.file_kinds import by_name

PAGE_SIZE = 50
PART_BYTES = 256 * 1024
"""Bytes of an uploaded file in a message: a gateway takes four times as much, and holds it until it is whole."""
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Call(Generic[Answer]):
    """method: of the API. request: a message, or the messages that are sent one after the other."""

    method: str
    request: Message | Iterator[Message]
    read: Callable[[Any], Answer]


def submit(prompt: str, **options: Any) -> Call[pb.Job]:
    """SubmitJob; options as in `submission`."""
    return _job("SubmitJob", submission(prompt, **options))


def get(job_id: str) -> Call[pb.Job]:
    """GetJob."""
    return _job("GetJob", pb.GetJobRequest(job_id=job_id))


def cancel(job_id: str) -> Call[pb.Job]:
    """CancelJob."""
    return _job("CancelJob", pb.CancelJobRequest(job_id=job_id))


def requeue(job_id: str) -> Call[pb.Job]:
    """RequeueJob."""
    return _job("RequeueJob", pb.RequeueJobRequest(job_id=job_id))


def purge(job_id: str) -> Call[pb.Job]:
    """PurgeJob."""
    return _job("PurgeJob", pb.PurgeJobRequest(job_id=job_id))


def update_prompt(job_id: str, prompt: str, interpolation_chunks: int | None) -> Call[int]:
    """UpdatePrompt: the chunk from which the prompt is taken."""
    request = pb.UpdatePromptRequest(job_id=job_id, prompt=prompt, interpolation_chunks=interpolation_chunks)
    return Call(method="UpdatePrompt", request=request, read=lambda answer: answer.chunk_index)


def upload(file: Path, content_type: str) -> Call[pb.Media]:
    """UploadMedia. content_type: guessed from the file's name if empty."""
    return Call(method="UploadMedia", request=_parts(file, content_type), read=lambda media: media)


def models() -> Call[tuple[pb.Model, ...]]:
    """ListModels."""
    return Call(method="ListModels", request=pb.ListModelsRequest(), read=lambda answer: tuple(answer.models))


def page(request: pb.ListJobsRequest) -> Call[pb.ListJobsResponse]:
    """ListJobs: one page."""
    return Call(method="ListJobs", request=request, read=lambda answer: answer)


class Listing(TypedDict, total=False):
    """Which jobs a list shows.

    page_size: jobs in one answer of the server, 50 if unset. states: for example ("queued", "running"); unset or empty
    means all. model: of this model only. dead_letters: only failed jobs that can be queued again.
    """

    page_size: int
    states: tuple[str, ...]
    model: str
    dead_letters: bool


def listing(options: Listing) -> pb.ListJobsRequest:
    """What ListJobs is asked for first. Raises ValueError for a state that does not exist."""
    return pb.ListJobsRequest(
        page_size=options.get("page_size", PAGE_SIZE),
        states=[pb.JobState.Value(f"JOB_STATE_{state.upper()}") for state in options.get("states", ())],
        model=options.get("model", ""),
        dead_letters=options.get("dead_letters", False),
    )


def submission(
    prompt: str,
    *,
    model: str = "",
    priority: str = "normal",
    idempotency_key: str = "",
    labels: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    queue_timeout_s: float | None = None,
    webhook_url: str = "",
    **params: Any,
) -> pb.SubmitJobRequest:
    """A SubmitJobRequest.

    priority: interactive, normal or batch. timeout_s, queue_timeout_s: None means the server's. params: further fields
    of GenerationParams; None leaves a field unset. Raises ValueError for a priority or a field that does not exist.
    """
    return pb.SubmitJobRequest(
        timeout=_duration(timeout_s),
        queue_timeout=_duration(queue_timeout_s),
        model=model,
        params=pb.GenerationParams(prompt=prompt, **{name: v for name, v in params.items() if v is not None}),
        priority=pb.Priority.Value(f"PRIORITY_{priority.upper()}"),
        idempotency_key=idempotency_key,
        labels=labels,
        webhook_url=webhook_url,
    )


def _job(method: str, request: Message) -> Call[pb.Job]:
    return Call(method=method, request=request, read=lambda job: job)


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration


def _parts(file: Path, content_type: str) -> Iterator[pb.UploadMediaRequest]:
    guessed = content_type or by_name(file.name) or mimetypes.guess_type(file.name)[0] or ""
    metadata = pb.MediaMetadata(content_type=guessed, size_bytes=file.stat().st_size)
    yield pb.UploadMediaRequest(metadata=metadata)
    with file.open("rb") as data:
        while piece := data.read(PART_BYTES):
            yield pb.UploadMediaRequest(data=piece)
