"""What calls answer, as messages of streaming calls: segments go out in parts."""

from collections.abc import Iterator

from helios.v1 import video_generation_pb2 as pb
from helios_services.gateway.calls.live_session import Event, PromptTaken, Refused
from helios_services.gateway.calls.video_stream import Segment
from helios_services.messages import chunk_info, job_message

PART_BYTES = 1024 * 1024


def parts(segment: Segment) -> Iterator[pb.VideoChunk]:
    """A segment in messages that every client takes."""
    record, data = segment.record, segment.data
    for start in range(0, len(data), PART_BYTES):
        last = start + PART_BYTES >= len(data)
        yield pb.VideoChunk(
            job_id=segment.job_id,
            data=data[start : start + PART_BYTES],
            init_segment=record is None,
            chunk_index=0 if record is None else record.index,
            last_part=last,
            info=chunk_info(record) if last and record is not None else None,
        )


def session_messages(event: Event) -> Iterator[pb.InteractResponse]:
    """An event of a live session."""
    match event:
        case Segment():
            for part in parts(event):
                yield pb.InteractResponse(chunk=part)
        case PromptTaken():
            yield pb.InteractResponse(prompt=pb.UpdatePromptResponse(chunk_index=event.chunk_index))
        case Refused():
            refused = pb.CommandRefused(code=event.refusal.code.value, message=event.refusal.message)
            yield pb.InteractResponse(refused=refused)
        case job:
            yield pb.InteractResponse(job=job_message(job))
