"""Videos made of others (`/remix`, `/extensions`), and a video within one request (`/sync`)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from helios.v1 import video_generation_pb2 as pb
from helios_engine.errors import InvalidField
from helios_services.gateway.calls.video_stream import Segment
from helios_services.gateway.http.admission import Generating, Submitting, house
from helios_services.gateway.http.content import MP4
from helios_services.gateway.http.naming import OURS, called
from helios_services.gateway.http.schemas import CREATE, EXTEND, FILE, JSON, REMIX, VIDEO, answers, takes
from helios_services.gateway.http.stream import Stream
from helios_services.gateway.http.submissions import Asked, asked, reference, submission
from helios_services.gateway.http.video_object import REMIXED
from helios_services.gateway.http.videos import TAKEN, answer, submitted
from helios_services.jobs.records import Job
from helios_services.messages import job_message

router = APIRouter(prefix="/v1/videos", tags=["videos"])
OF_EXTENSIONS = ("prompt", "model", "seconds", "size", "video", OURS)
OF_REMIXES = ("prompt", "seconds", "size", OURS)


@router.post("/extensions", responses=answers(JSON, VIDEO), openapi_extra=takes(EXTEND, ("prompt", "video"), "video"))
async def extend(request: Request, call: Submitting) -> Response:
    """Continues a finished video (`video.id`), as if it had been one longer job, or a clip that comes as the file
    `video`. The new video has the new part only."""
    body = await asked(request, call, file_field="video")
    _continued(body)
    return answer(request, await submitted(request, call, body, OF_EXTENSIONS))


@router.post("/{video_id}/remix", responses=answers(JSON, VIDEO), openapi_extra=takes(REMIX, ("prompt",)))
async def remix(request: Request, call: Submitting, video_id: str) -> Response:
    """Makes a video again, with another prompt and whatever else is given; the seed and the rest stay."""
    inside = house(request)
    source = await inside.api.get(call, video_id)
    body = await asked(request, call)
    message, names = submission(body, inside.config.model, request.headers, allowed=OF_REMIXES)
    if not message.params.prompt:
        raise InvalidField("prompt", message.params.prompt, "the prompt of the new video")
    _fill(message, source)
    with called(names, otherwise=OURS):
        return answer(request, await inside.api.submit(call, message))


@router.post("/sync", responses=answers(MP4, FILE), openapi_extra=takes(CREATE, ("prompt",), "input_reference"))
async def sync(request: Request, call: Generating) -> Response:
    """Makes a video and answers with it, chunk by chunk as it is made. A client that goes away ends it."""
    inside = house(request)
    body = await asked(request, call, file_field="input_reference")
    reference(body)
    message, names = submission(body, inside.config.model, request.headers, allowed=TAKEN)
    generate = pb.GenerateVideoRequest(job=message, cancel_on_disconnect=True)
    events = inside.api.generate(call, generate)
    with called(names, otherwise=OURS):
        job = await anext(events)
    assert isinstance(job, Job)
    headers = {"Cache-Control": "no-store", "Location": f"/v1/videos/{job.id}"}
    return Stream(_segments(events), MP4, headers=headers)


async def _segments(events: AsyncGenerator[Job | Segment]) -> AsyncGenerator[bytes]:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Segment):
                yield event.data


def _continued(body: Asked) -> None:
    given = body.fields.pop("video", None)
    media_id = next(iter(body.uploads.values()), "")
    if media_id and given is None:
        body.uploads = {"video_id": media_id}
        return
    source = given.get("id") if isinstance(given, dict) and set(given) == {"id"} and not media_id else None
    if not isinstance(source, str) or not source:
        raise InvalidField("video", given, 'a file in a form, or {"id": the id of a finished video}')
    body.uploads = {"continue_from": source}


def _fill(message: pb.SubmitJobRequest, source: Job) -> None:
    """What the request leaves open, from the source."""
    params = job_message(source).params
    params.ClearField("prompt_schedule")  # it was made for the other prompt
    for field, _ in message.params.ListFields():
        params.ClearField(field.name)  # type: ignore[arg-type]  # a name of this very message
    if message.params.HasField("num_frames"):
        params.open_ended = False
    params.MergeFrom(message.params)
    message.params.CopyFrom(params)
    message.model = source.spec.model
    message.labels[REMIXED] = source.id
