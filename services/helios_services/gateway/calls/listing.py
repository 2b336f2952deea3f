"""Pages of jobs."""

from dataclasses import dataclass

from helios.v1 import video_generation_pb2 as pb
from helios_engine.errors import InvalidField
from helios_services.gateway.guard.caller import Caller
from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.jobs.errors import InvalidCursor
from helios_services.jobs.records import Job
from helios_services.jobs.store import JobStore
from helios_services.messages import STATES

MAX_PAGE, DEFAULT_PAGE = 500, 50
PAGE_JOBS = 100
"""In a page at most, whatever is asked for."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A page of jobs, newest first. next_page_token: empty on the last page."""

    jobs: list[Job]
    next_page_token: str


async def listing(store: JobStore, caller: Caller, request: pb.ListJobsRequest) -> Listing:
    """A page of the caller's jobs. Raises InvalidField, Refusal."""
    _may_list(caller)
    if not 0 <= request.page_size <= MAX_PAGE:
        raise InvalidField("page_size", request.page_size, f"an integer from 1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}")
    known = {number: state for state, number in STATES.items()}
    for number in request.states:
        if number not in known and number != pb.JOB_STATE_UNSPECIFIED:
            raise InvalidField("states", number, ", ".join(pb.JobState.keys()))
    states = set() if pb.JOB_STATE_UNSPECIFIED in request.states else {known[number] for number in request.states}
    try:
        page = await store.page(
            limit=min(request.page_size or DEFAULT_PAGE, PAGE_JOBS),
            cursor=request.page_token,
            states=states,
            model=request.model,
            tenant=None if caller.admin else caller.tenant,
            dead_letters=request.dead_letters,
        )
    except InvalidCursor:
        allowed = "the next_page_token of a response to the same filters"
        raise InvalidField("page_token", request.page_token, allowed) from None
    return Listing(jobs=page.jobs, next_page_token=page.next_cursor)


async def listing_after(
    store: JobStore, caller: Caller, after: str, limit: int, *, oldest_first: bool = False
) -> Listing:
    """A page of the caller's jobs, behind the one whose id is `after` (empty: from the start).

    Raises InvalidField, Refusal.
    """
    _may_list(caller)
    tenant = None if caller.admin else caller.tenant
    try:
        page = await store.page(limit=limit, after=after, tenant=tenant, oldest_first=oldest_first)
    except InvalidCursor:
        raise InvalidField("after", after, "the id of a job of this list") from None
    return Listing(jobs=page.jobs, next_page_token=page.next_cursor)


def _may_list(caller: Caller) -> None:
    if caller.terms is not None and caller.terms.job_id:
        raise Refusal(Code.PERMISSION_DENIED, "ListJobs: this token is for one session only")
