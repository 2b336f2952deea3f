"""Health for probes: anybody may ask, and nothing is told but yes or no."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

router = APIRouter(include_in_schema=False)


class Health:
    """ready: whether the job store answers and calls are taken."""

    def __init__(self) -> None:
        self.ready = False


@router.get("/healthz")
async def healthz() -> Response:
    """The process is alive: also without Redis, when restarting it would help nobody."""
    return PlainTextResponse("ok\n")


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Calls are taken."""
    ready = request.app.state.health.ready
    return PlainTextResponse("ok\n" if ready else "not ready\n", 200 if ready else 503)
