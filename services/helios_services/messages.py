"""Records of the job store to messages of the API."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from helios.v1 import video_generation_pb2 as pb
from helios_engine.prompts import ScheduledPrompt
from helios_engine.request import FRAMES_PER_CHUNK, GenerationRequest
from helios_engine.variants import VARIANTS, resolve
from helios_services.config import ModelConfig
from helios_services.jobs.records import ChunkRecord, Job, JobSpec, Media, Priority
from helios_services.jobs.state import JobState

PRIORITIES: dict[int, Priority] = {
    pb.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    pb.PRIORITY_NORMAL: Priority.NORMAL,
    pb.PRIORITY_BATCH: Priority.BATCH,
}
STATES: dict[JobState, pb.JobState.ValueType] = {
    state: pb.JobState.Value(f"JOB_STATE_{state.name}") for state in JobState
}


def job_message(job: Job) -> pb.Job:
    """A job."""
    spec = job.spec
    message = pb.Job(
        id=job.id,
        state=STATES[job.state],
        model=spec.model,
        params=_params(spec),
        priority=pb.Priority.Value(f"PRIORITY_{spec.priority.name}"),
        labels=spec.labels,
        chunks_done=job.chunks_done,
        chunks_total=job.chunks_total,
        attempts=job.attempts,
        create_time=_timestamp(job.created_s),
        video_bytes=job.video_bytes,
        revision=job.revision,
        first_chunk=job.first_chunk,
        paused=job.paused,
        prompt_updates=map(_scheduled, job.prompt_updates),
    )
    if job.started_s is not None:
        message.start_time.CopyFrom(_timestamp(job.started_s))
    if job.ended_s is not None:
        message.end_time.CopyFrom(_timestamp(job.ended_s))
    if job.deadline_s is not None:
        message.deadline.CopyFrom(_timestamp(job.deadline_s))
    if job.error is not None:
        message.error.CopyFrom(pb.JobError(reason=job.error.reason, message=job.error.message))
    return message


def chunk_info(record: ChunkRecord) -> pb.ChunkInfo:
    """A chunk of the chunk log."""
    return pb.ChunkInfo(
        index=record.index,
        num_frames=record.num_frames,
        start=_duration(record.start_s),
        duration=_duration(record.duration_s),
        size_bytes=record.size_bytes,
        ready_time=_timestamp(record.ready_s),
        stages=pb.StageTimes(**{stage: _duration(seconds) for stage, seconds in record.stage_s.items()}),
    )


def model_message(model: ModelConfig) -> pb.Model:
    """The model and its limits."""
    defaults = _generation(resolve(GenerationRequest(prompt="defaults"), model.variant).to_dict())
    for name in ("prompt", "seed"):
        defaults.ClearField(name)
    return pb.Model(
        name=model.name,
        variant=model.variant,
        max_frames=model.max_frames,
        max_pixels=model.max_pixels,
        size_multiple=VARIANTS[model.variant].size_multiple,
        frames_per_chunk=FRAMES_PER_CHUNK,
        defaults=defaults,
        loras=sorted(model.loras),
    )


def media_message(media: Media) -> pb.Media:
    """An upload."""
    return pb.Media(
        id=media.id,
        content_type=media.content_type,
        size_bytes=media.size_bytes,
        expire_time=_timestamp(media.expire_s),
    )


def _params(spec: JobSpec) -> pb.GenerationParams:
    params = _generation(spec.params)
    params.image_id, params.video_id, params.continue_from = spec.image_id, spec.video_id, spec.continue_from
    if spec.chunks_total == 0:
        params.open_ended = True
        params.ClearField("num_frames")
    return params


def _generation(values: Mapping[str, Any]) -> pb.GenerationParams:
    """From GenerationRequest's fields; nothing from none."""
    if not values:
        return pb.GenerationParams()
    given = {name: value for name, value in values.items() if value is not None}
    for name in ("image_noise_sigma", "video_noise_sigma"):
        low, high = given[name]
        given[name] = pb.NoiseRange(min=low, max=high)
    given["prompt_schedule"] = [_scheduled(ScheduledPrompt(**entry)) for entry in given["prompt_schedule"]]
    given["loras"] = [pb.LoraWeight(**entry) for entry in given["loras"]]
    return pb.GenerationParams(**given)


def _scheduled(entry: ScheduledPrompt) -> pb.ScheduledPrompt:
    return pb.ScheduledPrompt(
        chunk_index=entry.chunk_index, prompt=entry.prompt, interpolation_chunks=entry.interpolation_chunks
    )


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration
