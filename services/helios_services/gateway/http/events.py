"""`/v1/videos/{id}/events`: a video's changes as server-sent events, which go on where a connection was cut."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from helios_engine.errors import InvalidField
from helios_services.config import JobsConfig
from helios_services.gateway.guard.refusal import refusal_of
from helios_services.gateway.http.admission import Watching, house
from helios_services.gateway.http.envelope import envelope
from helios_services.gateway.http.schemas import answers, heeds
from helios_services.gateway.http.stream import Stream
from helios_services.gateway.http.video_object import video
from helios_services.jobs.records import Job
from helios_services.tasks import cancelled

router = APIRouter(prefix="/v1/videos", tags=["videos"])
EVENTS = "text/event-stream"
ALIVE_S = 15.0
"""A line goes out this often, so that nobody on the way takes a waiting stream for a dead one."""
RETRY_MS = 2000
"""How soon browsers connect again."""
NOTHING_MORE = 204
"""Tells a browser that has seen the end not to connect again."""


@router.get(
    "/{video_id}/events",
    responses=answers(EVENTS, {"type": "string"}) | {204: {"description": "Nothing more."}},
    openapi_extra=heeds(("Last-Event-ID", "Of the last event that was seen: those behind it follow.")),
)
async def events(request: Request, call: Watching, video_id: str) -> Response:
    """The video now and after each change, up to its end. An event's id is the video's revision."""
    inside = house(request)
    seen = _seen(request.headers.get("last-event-id", ""))
    job = await inside.api.get(call, video_id)
    if job.ended_s is not None and job.revision <= seen:
        return Response(status_code=NOTHING_MORE)
    pieces = _events(inside.api.watch(call, video_id), seen, inside.config.jobs)
    return Stream(pieces, EVENTS, headers={"Cache-Control": "no-store"}, closes=True)


def _seen(header: str) -> int:
    if not header:
        return -1
    if not (header.isascii() and header.isdigit() and len(header) <= 18):
        raise InvalidField("Last-Event-ID", header, "the id of an event of this video")
    return int(header)


async def _events(jobs: AsyncGenerator[Job], seen: int, config: JobsConfig) -> AsyncGenerator[bytes]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    coming: asyncio.Task[Job | None] = asyncio.ensure_future(_next(jobs))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=ALIVE_S)
            if not done:
                yield b": alive\n\n"
                continue
            job = coming.result()
            if job is None:
                return
            if job.revision > seen:
                yield _event(video(job, config), f"id: {job.revision}\n")
            coming = asyncio.ensure_future(_next(jobs))
    except Exception as error:
        refusal = refusal_of(error)
        if refusal is None:
            raise
        yield _event(envelope(refusal), "event: error\n")
        raise refusal from None
    finally:
        await cancelled(coming)
        await jobs.aclose()


async def _next(jobs: AsyncGenerator[Job]) -> Job | None:
    return await anext(jobs, None)


def _event(data: Any, head: str) -> bytes:
    return f"{head}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
