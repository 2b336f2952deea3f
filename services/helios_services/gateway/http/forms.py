"""Forms (multipart/form-data), read as they arrive: fields are kept, files are handed on piece by piece."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from helios_engine.errors import InvalidField
from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.gateway.http.bodies import MOST_JSON_BYTES, parts

MOST_PARTS = 256
A_FORM = "a form as RFC 7578 has it"


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field that is no file."""

    name: str
    value: str


@dataclass(frozen=True, kw_only=True)
class FileBegins:
    """A file: its bytes follow as events of their own, then None."""

    name: str
    file_name: str
    content_type: str


Event = Field | FileBegins | bytes | None


def is_form(request: Request) -> bool:
    """Whether the body says that it is a form."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data"


async def form_events(request: Request, most_bytes: int) -> AsyncIterator[Event]:
    """What the form holds, in its order. most_bytes: of the whole body.

    Raises InvalidField, Refusal. Fields together take MOST_JSON_BYTES at most.
    """
    _, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise InvalidField("body", "no boundary", A_FORM)
    reader = _Reader()
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        async for part in parts(request, most_bytes):
            parser.write(part)
            for event in reader.taken():
                yield event
        parser.finalize()
    except FormParserError as error:
        raise InvalidField("body", str(error), A_FORM) from None
    if not reader.ended:
        raise InvalidField("body", "a form without its end", A_FORM)
    for event in reader.taken():
        yield event


async def file_data(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    """The bytes of the file that has just begun."""
    async for event in events:
        if event is None:
            return
        assert isinstance(event, bytes)
        yield event


class _Reader:
    """Turns the parser's callbacks into events."""

    def __init__(self) -> None:
        self.ended = False
        self._events: list[Event] = []
        self._header, self._headers = (bytearray(), bytearray()), dict[bytes, bytes]()
        self._name, self._value, self._of_file = "", bytearray(), False
        self._parts = self._kept_bytes = 0

    def callbacks(self) -> Any:
        """For the parser."""
        return {
            "on_part_begin": self._part_begins,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._part_ends,
            "on_end": self._ends,
        }

    def taken(self) -> list[Event]:
        """The events so far, once."""
        events, self._events = self._events, []
        return events

    def _part_begins(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise InvalidField("body", f"more than {MOST_PARTS} parts", f"at most {MOST_PARTS}")
        self._headers = {}

    def _header_ends(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = _text("body", options.get(b"name", b""))
        if not self._name:
            raise InvalidField("body", "a part without a name", A_FORM)
        self._of_file = b"filename" in options
        self._value = bytearray()
        if self._of_file:
            content_type = self._headers.get(b"content-type", b"").decode("latin-1")
            file_name = options[b"filename"].decode("utf-8", "replace")
            self._events.append(FileBegins(name=self._name, file_name=file_name, content_type=content_type))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._of_file:
            self._events.append(data[start:end])
            return
        self._kept_bytes += end - start
        if self._kept_bytes > MOST_JSON_BYTES:
            raise Refusal(Code.RESOURCE_EXHAUSTED, f"body: more than {MOST_JSON_BYTES:,} bytes of fields")
        self._value += data[start:end]

    def _part_ends(self) -> None:
        if self._of_file:
            self._events.append(None)
        else:
            self._events.append(Field(name=self._name, value=_text(self._name, bytes(self._value))))

    def _ends(self) -> None:
        self.ended = True


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidField(name, data[:40], "UTF-8") from None


def nested(fields: list[Field]) -> dict[str, Any]:
    """Fields as the object they stand for: `a[b]` is b in a, `a[]` one more of the list a. Values stay texts.

    Raises InvalidField.
    """
    whole: dict[str, Any] = {}
    for field in fields:
        first, *rest = field.name.replace("]", "").split("[")
        place, name = whole, first
        for key in rest:
            if key == "":
                continue
            place = place.setdefault(name, {})
            name = key
            if not isinstance(place, dict):
                raise InvalidField(field.name[:80], field.value, f"nothing: {first} is given in another form")
        if field.name.endswith("[]"):
            many = place.setdefault(name, [])
            if not isinstance(many, list):
                raise InvalidField(field.name[:80], field.value, "one kind of value")
            many.append(field.value)
        elif name in place:
            raise InvalidField(field.name[:80], field.value, "one value")
        else:
            place[name] = field.value
    return whole
