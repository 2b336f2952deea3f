"""`/v1/videos`: jobs in OpenAI's dialect."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from helios_services.gateway.guard.caller import Call
from helios_services.gateway.http.admission import Deleting, Listing, Reading, Submitting, house
from helios_services.gateway.http.naming import OURS, called
from helios_services.gateway.http.schemas import CREATE, JSON, VIDEO, answers, takes
from helios_services.gateway.http.submissions import Asked, asked, reference, submission
from helios_services.gateway.http.video_object import video
from helios_services.jobs.records import Job

router = APIRouter(prefix="/v1/videos", tags=["videos"])
TAKEN = ("prompt", "model", "seconds", "size", "input_reference", OURS)
MOST = 100
"""Videos on a page of a list."""


@router.post("", responses=answers(JSON, VIDEO), openapi_extra=takes(CREATE, ("prompt",), "input_reference"))
async def create(request: Request, call: Submitting) -> Response:
    """Accepts a video into the queue. `helios` takes what the dialect has no name for: SubmitJobRequest in JSON."""
    body = await asked(request, call, file_field="input_reference")
    reference(body)
    return answer(request, await submitted(request, call, body, TAKEN))


@router.get("")
async def list_videos(
    request: Request,
    call: Listing,
    after: Annotated[str, Query(max_length=128)] = "",
    limit: Annotated[int, Query(ge=1, le=MOST)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> dict[str, Any]:
    """A page of videos, without their prompts. after: the last id of the page before."""
    page = await house(request).api.list_after(call, after, limit, oldest_first=order == "asc")
    jobs = house(request).config.jobs
    return {
        "object": "list",
        "data": [video(job, jobs) for job in page.jobs],
        "first_id": page.jobs[0].id if page.jobs else None,
        "last_id": page.jobs[-1].id if page.jobs else None,
        "has_more": bool(page.next_page_token),
    }


@router.get("/{video_id}", responses=answers(JSON, VIDEO))
async def retrieve(request: Request, call: Reading, video_id: str) -> Response:
    """The video as it is."""
    return answer(request, await house(request).api.get(call, video_id))


@router.delete("/{video_id}")
async def delete(request: Request, call: Deleting, video_id: str) -> dict[str, Any]:
    """Cancels the video if it has not ended, and forgets it, its chunks and its file."""
    await house(request).api.delete(call, video_id)
    return {"id": video_id, "object": "video.deleted", "deleted": True}


async def submitted(request: Request, call: Call, body: Asked, allowed: tuple[str, ...]) -> Job:
    """The job of a body. Raises Refusal, InvalidField."""
    inside = house(request)
    message, names = submission(body, inside.config.model, request.headers, allowed=allowed)
    with called(names, otherwise=OURS):
        return await inside.api.submit(call, message)


def answer(request: Request, job: Job) -> Response:
    """The video, never from a cache."""
    return JSONResponse(video(job, house(request).config.jobs), headers={"Cache-Control": "no-store"})
