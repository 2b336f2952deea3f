"""`/v1/videos/{id}/hls/`: a video for every player, while it is made and as long as its chunks are kept (RFC 8216).

A finite job's playlist grows to its end (EVENT); an open-ended one's is a window over its newest chunks. A player may
wait for a chunk in its request (`_HLS_msn`). Chunks are whole fMP4 fragments.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from helios_engine.errors import InvalidField
from helios_engine.request import FRAMES_PER_CHUNK
from helios_services.gateway.calls.playback import INIT, NoChunkYet
from helios_services.gateway.guard.caller import Call
from helios_services.gateway.http.admission import Streaming, house
from helios_services.gateway.http.envelope import refused
from helios_services.gateway.http.schemas import FILE, answers
from helios_services.jobs.records import ChunkRecord, Job

router = APIRouter(prefix="/v1/videos", tags=["hls"])
PLAYLIST, SEGMENT = "application/vnd.apple.mpegurl", "video/mp4"
WINDOW = 8
"""Chunks in the playlist of an open-ended job, of those that are kept: the older ones are about to go."""
AHEAD = 2
"""A chunk further ahead than this is not waited for."""
MOST_INDEX = 10**9
Token = Annotated[str, Query(max_length=4096, description="A viewer's token, where it has no header to put it in.")]


@router.get("/{video_id}/hls/index.m3u8", responses=answers(PLAYLIST, {"type": "string"}))
async def playlist(
    request: Request,
    call: Streaming,
    video_id: str,
    msn: Annotated[int | None, Query(alias="_HLS_msn", ge=0, le=MOST_INDEX)] = None,
    token: Token = "",
) -> Response:
    """The playlist. Waits for the first chunk, or for chunk `_HLS_msn`, for some seconds."""
    api = house(request).api
    try:
        job, records = await api.chunks(call, video_id)
    except NoChunkYet as refusal:
        return refused(refusal)
    if msn is not None and records[-1].index < msn and job.ended_s is None:
        if msn > records[-1].index + AHEAD:
            raise InvalidField("_HLS_msn", msn, f"at most {records[-1].index + AHEAD}")
        job, records = await api.chunks(call, video_id, msn)
    query = f"?{urlencode({'token': token})}" if token else ""
    return Response(
        "\n".join([*_lines(job, records, query), ""]), media_type=PLAYLIST, headers={"Cache-Control": "no-store"}
    )


@router.get("/{video_id}/hls/init.mp4", responses=answers(SEGMENT, FILE))
async def init_segment(request: Request, call: Streaming, video_id: str, token: Token = "") -> Response:
    """The init segment."""
    return await _segment(request, call, video_id, INIT)


@router.get("/{video_id}/hls/{index}.m4s", responses=answers(SEGMENT, FILE))
async def segment(
    request: Request,
    call: Streaming,
    video_id: str,
    index: Annotated[int, Path(ge=0, le=MOST_INDEX)],
    token: Token = "",
) -> Response:
    """A chunk."""
    return await _segment(request, call, video_id, index)


async def _segment(request: Request, call: Call, video_id: str, index: int) -> Response:
    data = await house(request).api.segment(call, video_id, index)
    return Response(data, media_type=SEGMENT, headers={"Cache-Control": "private, max-age=3600, immutable"})


def _lines(job: Job, records: Sequence[ChunkRecord], query: str) -> Iterator[str]:
    """The playlist's lines. query: of every address in it, which players do not take over from the playlist's own."""
    endless = job.spec.chunks_total == 0
    whole = job.ended_s is not None or 0 < job.chunks_total <= records[-1].index + 1
    if endless:
        records = records[-WINDOW:]
    yield from ("#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-INDEPENDENT-SEGMENTS")
    yield f"#EXT-X-TARGETDURATION:{math.ceil(FRAMES_PER_CHUNK / job.spec.params['fps'])}"
    yield f"#EXT-X-MEDIA-SEQUENCE:{records[0].index}"
    if not endless:
        yield "#EXT-X-PLAYLIST-TYPE:EVENT"
    if not whole:
        yield "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES"
    yield f'#EXT-X-MAP:URI="init.mp4{query}"'
    for record in records:
        yield f"#EXTINF:{record.duration_s:.5f},"
        yield f"{record.index}.m4s{query}"
    if whole:
        yield "#EXT-X-ENDLIST"
