"""`/v1/videos/{id}/content`: the finished file, with ranges; before that, the fragmented file as it grows."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from helios_services.gateway.calls.api import Api
from helios_services.gateway.guard.caller import Call
from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.gateway.http.admission import Downloading, house
from helios_services.gateway.http.envelope import envelope
from helios_services.gateway.http.ranges import Span, wanted
from helios_services.gateway.http.schemas import FILE, answers, heeds
from helios_services.gateway.http.stream import Stream
from helios_services.jobs.records import Job
from helios_services.jobs.state import JobState

router = APIRouter(prefix="/v1/videos", tags=["videos"])
MP4 = "video/mp4"


@router.head("/{video_id}/content", include_in_schema=False)
@router.get(
    "/{video_id}/content",
    responses=answers(MP4, FILE) | answers(MP4, FILE, 206),
    openapi_extra=heeds(
        ("Range", "A part of the finished file: bytes=FIRST-LAST."),
        ("If-Range", "The ETag of the file that the range is of."),
        ("If-None-Match", "The ETag of a file that is here already."),
    ),
)
async def content(request: Request, call: Downloading, video_id: str, variant: Literal["video"] = "video") -> Response:
    """The MP4. Of a video that is being made, what there is and then each chunk as it becomes ready, to the last."""
    api = house(request).api
    job = await api.get(call, video_id)
    if job.ended_s is not None:
        return _file(request, api, call, job)
    headers = {"Cache-Control": "no-store", "Accept-Ranges": "none", **_name(job)}
    if request.method == "HEAD":
        return Response(headers=headers, media_type=MP4)
    return Stream(_growing(api, call, job), MP4, headers=headers)


async def _growing(api: Api, call: Call, job: Job) -> AsyncGenerator[bytes]:
    async with aclosing(api.stream(call, job.id, job.first_chunk)) as segments:
        async for segment in segments:
            yield segment.data


def _file(request: Request, api: Api, call: Call, job: Job) -> Response:
    if job.state is not JobState.SUCCEEDED or not job.artifact:
        return Stream(_read(api, call, job, Span(0, 0)), MP4)  # which is refused for what it is
    total, tag = job.video_bytes, f'"{job.id}"'
    headers = {"ETag": tag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache", **_name(job)}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    try:
        asked = request.headers.get("range", "") if request.headers.get("if-range", tag) == tag else ""
        span = wanted(asked, total)
    except ValueError:
        refusal = Refusal(Code.OUT_OF_RANGE, f"Range: {asked[:80]!r} is not in the file, which has {total:,} bytes")
        return JSONResponse(envelope(refusal), 416, headers | {"Content-Range": f"bytes */{total}"})
    status = 200 if span is None else 206
    if span is not None:
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{total}"
    span = span or Span(0, total)
    headers["Content-Length"] = str(span.end - span.start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=MP4)
    return Stream(_read(api, call, job, span), MP4, status_code=status, headers=headers)


async def _read(api: Api, call: Call, job: Job, span: Span) -> AsyncGenerator[bytes]:
    left = span.end - span.start
    async with api.download(call, job.id, span.start) as file:
        async for data in file.parts():
            yield data[:left]
            left -= len(data)
            if left <= 0:
                return


def _name(job: Job) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{job.id}.mp4"'}
