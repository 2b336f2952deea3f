"""Bodies of requests: they come soon, are no larger than they may be, and are cut off where nobody reads them."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from helios_engine.errors import InvalidField
from helios_services.gateway.guard.patience import each_soon, soon
from helios_services.gateway.guard.refusal import Code, Refusal

MOST_JSON_BYTES = 256 * 1024
"""More than the store keeps of a job."""
LINGER_S, LINGER_BYTES = 1.0, 1024 * 1024
"""What is still taken of a body that was cut off, so that a client that writes has time to read why."""


async def parts(request: Request, most_bytes: int) -> AsyncIterator[bytes]:
    """The body's parts as they arrive. Raises Refusal: too large a one, or one that comes too slowly."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most_bytes:
        raise _too_large(most_bytes)
    size = 0
    async for part in each_soon(_arriving(request)):
        size += len(part)
        if size > most_bytes:
            raise _too_large(most_bytes)
        yield part


async def json_body(request: Request) -> dict[str, Any]:
    """The JSON object that the body is. Raises Refusal, InvalidField."""
    return parsed("body", await soon(_whole(request)))


def parsed(field: str, data: bytes | str) -> dict[str, Any]:
    """The JSON object that a text is. Raises InvalidField."""
    try:
        content = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise InvalidField(field, f"{len(data):,} bytes", "a JSON object") from None
    if not isinstance(content, dict):
        raise InvalidField(field, type(content).__name__, "a JSON object")
    return content


async def _whole(request: Request) -> bytes:
    return b"".join([part async for part in parts(request, MOST_JSON_BYTES)])


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


async def _arriving(request: Request) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Refusal(Code.CANCELLED, "the client has gone")
        more = message.get("more_body", False)
        if body := message.get("body", b""):
            yield body


def _too_large(most_bytes: int) -> Refusal:
    return Refusal(Code.RESOURCE_EXHAUSTED, f"body: more than {most_bytes:,} bytes are not allowed")


class Bodies:
    """Closes the connection behind an answer to a body that was not read to its end: nobody would read the rest."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        unread = True

        async def received() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message.get("more_body", False)
            return message

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start" and unread:
                MutableHeaders(scope=message)["Connection"] = "close"
            if message["type"] == "http.response.body" and unread and not message.get("more_body", False):
                await send({**message, "more_body": True})  # the client has it all; the end is said a little later
                await _linger(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._app(scope, received, answered)


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


async def _linger(receive: Receive) -> None:
    size, more = 0, True
    try:
        async with asyncio.timeout(LINGER_S):
            while more and size < LINGER_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                more = message.get("more_body", False)
    except TimeoutError:
        return
