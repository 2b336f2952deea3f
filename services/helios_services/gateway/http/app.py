"""The application of the HTTP door: its routes, and what every answer has in common."""

from collections.abc import Mapping

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.gateway.http import (
    content,
    derived,
    events,
    health,
    hls,
    media,
    models,
    realtime,
    tokens,
    videos,
)
from helios_services.gateway.http.admission import House
from helios_services.gateway.http.bodies import Bodies
from helios_services.gateway.http.envelope import envelope, refused
from helios_services.gateway.http.openapi import describe
from helios_services.gateway.http.origins import Origins
from helios_services.gateway.http.pages import Headers, mount_pages

ROOMS = (health, models, media, videos, derived, content, events, hls, realtime, tokens)
"""Each has its routes."""
CODES: Mapping[int, Code] = {404: Code.NOT_FOUND, 405: Code.INVALID_ARGUMENT}
EXPOSED = ("Content-Range", "ETag", "Retry-After", "Accept-Ranges", "Content-Disposition")
"""Headers of answers that pages of other origins may read."""
PREFLIGHT_S = 600
CALLED = ("Authorization", "Content-Type", "Idempotency-Key", "Range", "Last-Event-ID", "If-None-Match", "If-Range")


def application(house: House) -> FastAPI:
    """The door's ASGI application."""
    app = FastAPI(title="Helios Serve", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.state.house, app.state.health = house, health.Health()
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _not_here)
    for room in ROOMS:
        app.include_router(room.router)
    describe(app)
    mount_pages(app)
    app.add_middleware(Bodies)
    app.add_middleware(Origins, config=house.config.gateway)
    origins = house.config.gateway.cors_origins
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=CALLED,
            expose_headers=EXPOSED,
            max_age=PREFLIGHT_S,
        )
    app.add_middleware(Headers)
    return app


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return refused(error)


async def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = CODES.get(error.status_code, Code.INVALID_ARGUMENT)
    text = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return JSONResponse(envelope(Refusal(code, text)), error.status_code, error.headers)
