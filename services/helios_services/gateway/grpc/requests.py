"""Requests as they come off the wire: bytes that are no message, and messages with absurd numbers of entries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError, Message

from helios_engine.errors import InvalidField
from helios_services.gateway.guard.patience import soon
from helios_services.gateway.guard.refusal import Code, Refusal

MAX_ENTRIES = 1000
"""Entries of any list or map, more than every rule about a single field allows. Without this bound small entries, of
two bytes each, would become gigabytes of objects before a rule is asked."""
GONE_S = 0.1
"""How long after the end of its messages a call whose client has gone is cancelled, at the latest."""
if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class Malformed:
    """Stands for bytes that are no message of the type, until it is read and refused."""

    def __init__(self, text: str) -> None:
        self.text = text


def tolerant(
    deserialize: Callable[[bytes], Message], most_bytes: int | None = None
) -> Callable[[bytes], Message | Malformed]:
    """A deserializer that leaves the refusal to the reader: gRPC's own would answer UNKNOWN or INTERNAL.

    most_bytes: larger messages are not even looked at, for calls that anybody may hold open.
    """

    def read(data: bytes) -> Message | Malformed:
        if most_bytes is not None and len(data) > most_bytes:
            return Malformed(f"the request has {len(data):,} bytes; allowed: at most {most_bytes:,}")
        try:
            return deserialize(data)
        except DecodeError:
            return Malformed(f"the request's {len(data):,} bytes are no message of this call")

    return read


async def only_request(context: Context) -> Message:
    """The message of a call that has one, which must come soon. Raises Refusal, InvalidField."""
    message = await soon(context.read())
    if message is grpc.aio.EOF:
        await asyncio.sleep(GONE_S)
        raise Refusal(Code.INVALID_ARGUMENT, "the call ended without its request")
    return _checked(message)


async def requests(context: Context) -> AsyncIterator[Message]:
    """The messages of a streaming call, of which the first must come soon. Raises Refusal, InvalidField."""
    message = await soon(context.read())
    while message is not grpc.aio.EOF:
        yield _checked(message)
        message = await context.read()


def _checked(message: Message | Malformed) -> Message:
    if isinstance(message, Malformed):
        raise Refusal(Code.INVALID_ARGUMENT, message.text)
    _count(message, "")
    return message


def _count(message: Message, prefix: str) -> None:
    for field, value in message.ListFields():
        name = f"{prefix}{field.name}"
        if field.is_repeated:
            if len(value) > MAX_ENTRIES:
                raise InvalidField(name, f"{len(value)} entries", f"at most {MAX_ENTRIES}")
            if field.message_type is not None and not field.message_type.GetOptions().map_entry:
                for number, entry in enumerate(value):
                    _count(entry, f"{name}[{number}].")
        elif field.message_type is not None:
            _count(value, f"{name}.")
