"""Requests as they come off the wire: bytes that are no message, and messages with absurd numbers of entries."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from helios_engine.errors import InvalidField
from helios_services.gateway.guard.refusal import Refusal

MAX_ENTRIES = 1000
"""Of any list or map: more than every rule about a single field allows. Small entries (two bytes can be one) would
otherwise become gigabytes of objects before a rule is asked."""


class Malformed:
    """Stands for bytes that are no message of the type, until the handler refuses them."""

    def __init__(self, text: str) -> None:
        self.text = text


def tolerant(deserialize: Any) -> Callable[[bytes], Any]:
    """A deserializer that leaves the refusal to the handler: gRPC's own would answer UNKNOWN or INTERNAL."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return Malformed(f"the request's {len(data):,} bytes are no message of this call")

    return read


def checked(request: Any) -> Any:
    """The request. Raises Refusal (INVALID_ARGUMENT) for malformed bytes, InvalidField for too many entries."""
    if isinstance(request, Malformed):
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, request.text)
    _count(request, "")
    return request


async def each_checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The requests of a streaming call, one by one as `checked` gives them."""
    async for request in requests:
        yield checked(request)


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
