"""Text messages: JSON objects with a `type`. A client's are InteractRequest's commands, with their fields."""

import json
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message

from helios.v1 import video_generation_pb2 as pb
from helios_engine.errors import InvalidField
from helios_services.gateway.calls.live_session import Event, PromptTaken, Refused
from helios_services.gateway.calls.video_stream import Segment
from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.gateway.http.envelope import envelope
from helios_services.messages import chunk_info, job_message

COMMANDS = tuple(field.name for field in pb.InteractRequest.DESCRIPTOR.fields)
ANSWERS = ("job", "chunk", "prompt", "refused", "error", "alive")


def command(text: str) -> pb.InteractRequest:
    """What a client says. Raises Refusal, InvalidField."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Refusal(Code.INVALID_ARGUMENT, f"message: {text[:64]!r} is not allowed; allowed: a JSON object")
    kind = content.pop("type", None)
    if kind not in COMMANDS:
        raise InvalidField("type", kind, ", ".join(COMMANDS))
    try:
        return ParseDict({kind: content}, pb.InteractRequest())
    except (ParseError, RecursionError) as error:
        raise Refusal(Code.INVALID_ARGUMENT, f"{kind}: {error}") from None


def answer(event: Event) -> str:
    """An event of a session; that of a chunk goes before its bytes."""
    match event:
        case Segment(record=record):
            assert record is not None
            content: dict[str, Any] = {"type": "chunk", "chunk": _plain(chunk_info(record))}
        case PromptTaken():
            content = {"type": "prompt", "message": event.message, "chunk_index": event.chunk_index}
        case Refused():
            content = {"type": "refused", "message": event.message} | envelope(event.refusal)
        case job:
            content = {"type": "job", "job": _plain(job_message(job))}
    return json.dumps(content)


def last_words(refusal: Refusal) -> str:
    """Why the session ends."""
    return json.dumps({"type": "error"} | envelope(refusal))


def _plain(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
