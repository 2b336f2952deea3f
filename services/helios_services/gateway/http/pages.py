"""The player's pages, and what browsers are told with every answer."""

from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; worker-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""Nothing comes from elsewhere, nothing inline runs, no other page frames this one."""
COMMON = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
PLACES = ("web", "../../../../web")
"""Where the pages are, from this folder: in an installed package, and in the source tree."""


class Headers:
    """Adds the common headers to every answer that has not its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in COMMON.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, answered)


class Pages(StaticFiles):
    """Files; a WebSocket to a path that nothing answers is refused with 403, as where no pages are."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = WebSocketClose() if scope["type"] == "websocket" else super().__call__
        await answer(scope, receive, send)


def mount_pages(app: FastAPI) -> None:
    """At `/`, behind every other route; nothing where the pages are not installed."""
    here = Path(__file__).parent
    for place in PLACES:
        folder = (here / place).resolve()
        if (folder / "index.html").is_file():
            app.mount("/", Pages(directory=folder, html=True), name="pages")
            return
