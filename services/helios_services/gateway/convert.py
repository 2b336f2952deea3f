"""Records of the job store to messages of the API."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from helios.v1 import video_generation_pb2 as pb
from helios_engine.request import FRAMES_PER_CHUNK, SIZE_MULTIPLE, GenerationRequest
from helios_services.config import ModelConfig
from helios_services.jobs.records import ChunkRecord, Job, Priority
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
        params=pb.GenerationParams(**spec.params),
        priority=pb.Priority.Value(f"PRIORITY_{spec.priority.name}"),
        labels=spec.labels,
        chunks_done=job.chunks_done,
        chunks_total=spec.chunks_total,
        attempts=job.attempts,
        create_time=_timestamp(job.created_s),
        video_bytes=job.video_bytes,
        revision=job.revision,
    )
    if job.started_s is not None:
        message.start_time.CopyFrom(_timestamp(job.started_s))
    if job.ended_s is not None:
        message.end_time.CopyFrom(_timestamp(job.ended_s))
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
    defaults = GenerationRequest(prompt="defaults")
    return pb.Model(
        name=model.name,
        variant="distilled",
        max_frames=model.max_frames,
        max_pixels=model.max_pixels,
        size_multiple=SIZE_MULTIPLE,
        frames_per_chunk=FRAMES_PER_CHUNK,
        defaults=pb.GenerationParams(
            num_frames=defaults.num_frames,
            height=defaults.height,
            width=defaults.width,
            pyramid_steps=defaults.pyramid_steps,
            amplify_first_chunk=defaults.amplify_first_chunk,
            guidance_scale=defaults.guidance_scale,
            fps=defaults.fps,
        ),
    )


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration
