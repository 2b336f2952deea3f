"""What a client asks for in OpenAI's dialect, as a request of the API."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from starlette.requests import Request

from helios.v1 import video_generation_pb2 as pb
from helios_engine.errors import InvalidField
from helios_engine.request import GenerationRequest
from helios_services.config import ModelConfig
from helios_services.file_kinds import SUFFIXES, bare, by_name
from helios_services.gateway.guard.caller import Call
from helios_services.gateway.http.admission import House, house
from helios_services.gateway.http.bodies import MOST_JSON_BYTES, json_body, parsed
from helios_services.gateway.http.forms import Event, Field, FileBegins, file_data, form_events, is_form, nested
from helios_services.gateway.http.naming import OURS, called
from helios_services.gateway.http.sizes import frames, nearest
from helios_services.media.sniff import UNKNOWN, sniff

DEFAULT_FPS = GenerationRequest(prompt="defaults").fps
FILE_NAMES = {"metadata.content_type": "input_reference", "data": "input_reference"}
NAMES = {"params.prompt": "prompt", "model": "model"}
HEADER = "Idempotency-Key"
BOOLEANS = {"true": True, "false": False}


@dataclass(kw_only=True)
class Asked:
    """A body: its fields, and the ids of what was uploaded with it, by the fields of GenerationParams."""

    fields: dict[str, Any]
    uploads: dict[str, str] = field(default_factory=dict)


async def asked(request: Request, call: Call, *, file_field: str = "") -> Asked:
    """The body, JSON or a form. file_field: a field that may be a file, which is uploaded as it arrives.

    Raises Refusal, InvalidField.
    """
    if not is_form(request):
        return Asked(fields=await json_body(request))
    return await _of_form(request, call, house(request), file_field)


def submission(
    asked: Asked, model: ModelConfig, headers: Mapping[str, str], *, allowed: tuple[str, ...]
) -> tuple[pb.SubmitJobRequest, dict[str, str]]:
    """The request, and the names that its fields had. allowed: names that this call takes. Raises InvalidField."""
    given = {name: value for name, value in asked.fields.items() if value is not None}
    for name in given:
        if name not in allowed:
            raise InvalidField(name[:80], given[name], f"only {', '.join(allowed)}")
    names = dict(NAMES)
    request = _ours(given.get(OURS, {}))
    params = request.params
    for name, target in (("model", request), ("prompt", params)):
        if name in given:
            setattr(target, name, _text(name, given[name]))
    for name, media_id in asked.uploads.items():
        setattr(params, name, media_id)
        names[f"params.{name}"] = "input_reference"
    if "seconds" in given:
        _once(params.HasField("num_frames"), "seconds", given["seconds"], f"{OURS}.params.num_frames")
        params.num_frames = frames(given["seconds"], _fps(params), model)
        names["params.num_frames"] = "seconds"
    if "size" in given:
        _once(params.HasField("width") or params.HasField("height"), "size", given["size"], f"{OURS}.params.width")
        params.width, params.height = nearest(given["size"], model)
        names |= {"params.width": "size", "params.height": "size"}
    if headers.get(HEADER):
        _once(bool(request.idempotency_key), HEADER, headers[HEADER], f"{OURS}.idempotency_key")
        request.idempotency_key = headers[HEADER]
        names["idempotency_key"] = HEADER
    return request, names


def reference(asked: Asked) -> None:
    """Takes out of the fields an `input_reference` that is no file, but names an upload. Raises InvalidField."""
    given = asked.fields.pop("input_reference", None)
    if given is None:
        return
    media_id = given.get("file_id") if isinstance(given, dict) and set(given) == {"file_id"} else None
    if not isinstance(media_id, str):
        raise InvalidField("input_reference", given, 'a file in a form, or {"file_id": the id of an uploaded image}')
    asked.uploads["image_id"] = media_id


def _ours(given: object) -> pb.SubmitJobRequest:
    if not isinstance(given, dict):
        raise InvalidField(OURS, given, "an object: SubmitJobRequest in JSON")
    try:
        request = ParseDict(given, pb.SubmitJobRequest())
    except (ParseError, ValueError, TypeError, RecursionError) as error:
        raise InvalidField(OURS, given, f"SubmitJobRequest in JSON ({error})") from None
    assert isinstance(request, pb.SubmitJobRequest)
    return request


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidField(name, value, "a text")
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair, which JSON can say
        raise InvalidField(name, ascii(value), "a text of whole characters") from None
    return value


def _fps(params: pb.GenerationParams) -> int:
    return max(1, params.fps) if params.HasField("fps") else DEFAULT_FPS


def _once(other: bool, name: str, value: object, elsewhere: str) -> None:
    if other:
        raise InvalidField(name, value, f"nothing, where {elsewhere} is given")


async def _of_form(request: Request, call: Call, house: House, file_field: str) -> Asked:
    fields: list[Field] = []
    uploads: dict[str, str] = {}
    events = form_events(request, house.config.media.max_bytes + MOST_JSON_BYTES)
    async for event in events:
        if isinstance(event, Field):
            fields.append(event)
        elif isinstance(event, FileBegins):
            if event.name != file_field or uploads:
                allowed = f"one file, in {file_field}" if file_field else "no file"
                raise InvalidField(event.name[:80], "a file", allowed)
            uploads |= await _uploaded(house, call, event, events)
    content = nested(fields)
    if isinstance(content.get(OURS), str):
        content[OURS] = parsed(OURS, content[OURS])
    elif OURS in content:
        content[OURS] = _with_booleans(content[OURS])
    return Asked(fields=content, uploads=uploads)


def _with_booleans(value: Any) -> Any:
    """Forms have texts only, of which the JSON of messages takes numbers but not booleans."""
    if isinstance(value, dict):
        return {name: _with_booleans(each) if name != "labels" else each for name, each in value.items()}
    return BOOLEANS.get(value, value) if isinstance(value, str) else value


async def _uploaded(house: House, call: Call, file: FileBegins, events: AsyncIterator[Event]) -> dict[str, str]:
    """The upload's id, by the field of GenerationParams that takes its kind."""
    data = file_data(events)
    first = await anext(data, b"")
    kind = _kind(file, first)

    async def whole() -> AsyncIterator[bytes]:
        if first:
            yield first
        async for part in data:
            yield part

    with called(FILE_NAMES):
        media = await house.api.upload(call, pb.MediaMetadata(content_type=kind), whole())
    return {"image_id" if kind.startswith("image/") else "video_id": media.id}


def _kind(file: FileBegins, first: bytes) -> str:
    """The content type that the client says, or that the file's name or its first bytes do."""
    said = bare(file.content_type)
    if said in SUFFIXES:
        return said
    found = by_name(file.file_name) or sniff(first)
    return found if found != UNKNOWN else file.content_type
