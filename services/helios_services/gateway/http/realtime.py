"""`/v1/realtime/video`: one live session, as gRPC's Interact has it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from helios.v1 import video_generation_pb2 as pb
from helios_services.gateway.calls.video_stream import Segment
from helios_services.gateway.guard.guard import Guard
from helios_services.gateway.guard.patience import soon
from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.gateway.guard.tokens import is_token
from helios_services.gateway.http.admission import headers_of, house, peer_of
from helios_services.gateway.http.envelope import status_of
from helios_services.gateway.http.realtime_frames import frame
from helios_services.gateway.http.realtime_messages import answer, command, last_words
from helios_services.tasks import cancelled

PROTOCOL, TOKEN_PREFIX = "helios.realtime.v1", "helios.token."
"""What a browser offers in Sec-WebSocket-Protocol: the first by name, and its token behind the second."""
ALIVE, ALIVE_S = '{"type": "alive"}', 10.0
ENDED, REFUSED = 1000, 4000
"""Close codes: all is said; or this and the HTTP status of the error that was sent before."""
router = APIRouter()


@router.websocket("/v1/realtime/video")
async def realtime_video(socket: WebSocket) -> None:
    """A socket that is refused is opened all the same: pages cannot read why a handshake failed."""
    offered = [name.strip() for name in socket.headers.get("sec-websocket-protocol", "").split(",")]
    await socket.accept(PROTOCOL if PROTOCOL in offered else None)
    try:
        await _session(socket, offered)
    except Refusal as refusal:
        if socket.application_state is not WebSocketState.CONNECTED:
            return
        try:
            await socket.send_text(last_words(refusal))
            await socket.close(REFUSED + status_of(refusal))
        except (WebSocketDisconnect, RuntimeError):  # it is gone
            return


async def _session(socket: WebSocket, offered: list[str]) -> None:
    behind = house(socket)
    guard: Guard = behind.guard
    with guard.call("Interact", [*headers_of(socket), *_tokens(offered)], peer=peer_of(socket)) as call:
        alive = asyncio.create_task(_alive(socket))
        try:
            async with aclosing(behind.api.interact(call, _commands(socket))) as events:
                async for event in events:
                    if not (isinstance(event, Segment) and event.record is None):
                        await socket.send_text(answer(event))
                    if isinstance(event, Segment):
                        await socket.send_bytes(frame(event))
            await socket.close(ENDED)
        except WebSocketDisconnect:
            raise Refusal(Code.CANCELLED, "the client has gone") from None
        finally:
            await cancelled(alive)


async def _alive(socket: WebSocket) -> None:
    """Says so now and then: a page has no other way to tell a silent service from a lost one."""
    with suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await asyncio.sleep(ALIVE_S)
            await socket.send_text(ALIVE)


def _tokens(offered: list[str]) -> list[tuple[str, str]]:
    """Tokens among the protocols, as the guard takes credentials. An API key is none: it belongs into no page."""
    tokens = [name.removeprefix(TOKEN_PREFIX) for name in offered if name.startswith(TOKEN_PREFIX)]
    return [("authorization", f"Bearer {token}" if is_token(token) else "") for token in tokens]


async def _commands(socket: WebSocket) -> AsyncIterator[pb.InteractRequest]:
    """The client's commands; the first must come soon. Raises Refusal, InvalidField."""
    message = await soon(socket.receive())
    while message["type"] == "websocket.receive":
        text = message.get("text")
        if text is None:
            raise Refusal(Code.INVALID_ARGUMENT, "message: bytes are not allowed; allowed: text, a JSON object")
        yield command(text)
        message = await socket.receive()
    raise Refusal(Code.CANCELLED, "the client has gone")
