"""Answers that go out piece by piece, for as long as their client is there."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.tasks import cancelled

PIECE_BYTES = 256 * 1024
"""Handed to a connection at a time; the next follows when the client has taken most of it."""


class Stream(Response):
    """Status and headers wait for the first piece, so that what is refused until then is refused as anything else.

    closes: an error behind the first piece ends the answer in order, for a stream that has said why; others are cut
    off, so that no client takes a part for the whole.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes],
        media_type: str,
        *,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        closes: bool = False,
    ) -> None:
        self._pieces, self._closes = pieces, closes
        self.media_type, self.status_code, self.background = media_type, status_code, None
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the application."""
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise Refusal(Code.CANCELLED, "the client has gone")
            await sending
        finally:
            await cancelled(sending, gone)

    async def _send(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            piece = await anext(pieces, b"")
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                while piece:
                    for start in range(0, len(piece), PIECE_BYTES):
                        part = piece[start : start + PIECE_BYTES]
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                    piece = await anext(pieces, b"")
            except Refusal:
                if self._closes:
                    await send({"type": "http.response.body", "body": b""})
                raise
            await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
