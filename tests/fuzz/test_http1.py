"""Requests of the HTTP door, from its own description, from damage and from noise: each is answered or cut off, and the
fault is the caller's."""

import json
import socket
from contextlib import suppress
from functools import cache
from typing import Any

import httpx
import schemathesis
from fuzz.cases import Edit, cases, edited, edits
from fuzz.target import PATIENCE_S, Target
from fuzz.test_http2 import SILENCE_S
from hypothesis import given
from hypothesis import strategies as st
from schemathesis.core.result import Ok

CALLERS_FAULT = {200, 201, 204, 206, 304, 400, 403, 404, 405, 408, 409, 410, 413, 416, 429}
NOT_YET = 503
"""A playlist of a video without a chunk."""
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
FIELDS = st.sampled_from(("prompt", "model", "seconds", "size", "input_reference", "video", "helios", "other"))
HEADERS = (
    "Range",
    "If-Range",
    "If-None-Match",
    "Last-Event-ID",
    "Idempotency-Key",
    "Content-Type",
    "traceparent",
    "Host",
    "Origin",
)
VISIBLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
LIKELY = st.sampled_from(
    (
        *(
            "bytes=0-",
            "bytes=-1",
            "bytes=5-2",
            "bytes=0-0,2-3",
            '"x"',
            "*",
            "[",
            "http://[",
            "1",
            "-1",
            "9" * 40,
            "application/json",
        ),
        *("multipart/form-data", "multipart/form-data; boundary=a", "00-" + "1" * 32 + "-" + "2" * 16 + "-01"),
    )
)


LIMITS = httpx.Timeout(60.0, read=PATIENCE_S)
"""Answers that go on are given up after a while."""


def answered(target: Target, method: str, path: str, **options: Any) -> None:
    """The request is answered, in the envelope where it is refused, or waits for what is not there yet."""
    try:
        answer = httpx.request(method, target.http + path, timeout=LIMITS, **options)
    except (httpx.ReadTimeout, httpx.RemoteProtocolError):  # follows a job; ends with it
        target.check_serving()
        return
    assert answer.status_code in CALLERS_FAULT | {NOT_YET}, answer.text
    if answer.status_code >= 400 and method != "HEAD":
        error = answer.json()["error"]
        assert error["message"], error
        assert error["code"], error
    target.check_serving()


def paths(target: Target) -> st.SearchStrategy[tuple[str, str]]:
    """Calls about jobs that there are, and that there are not."""
    ids = st.sampled_from((*target.ids, "x", "%00", "..", "%2e%2e%2f", "\u00e9"))
    ends = st.sampled_from(("", "/content", "/events", "/hls/index.m3u8", "/hls/0.m4s", "/hls/init.mp4", "/remix"))
    methods = st.sampled_from(("GET", "HEAD", "POST", "DELETE", "PUT", "OPTIONS"))
    gone = st.builds(lambda job_id, end: f"/v1/videos/{job_id}{end}", ids, ends)
    return st.tuples(methods, gone).filter(lambda pair: pair[0] != "DELETE" or not pair[1].endswith(target.ids))


@cases(0.05)
@given(data=st.data())
def test_what_the_description_allows(target: Target, data: st.DataObject) -> None:
    operation = data.draw(st.sampled_from(operations(target)))
    case = data.draw(operation.as_strategy())
    if case.method == "DELETE":  # of jobs that other cases need
        case.path_parameters = {"video_id": "x"}
    parts = case.as_transport_kwargs(base_url=target.http)
    path = parts.pop("url").removeprefix(target.http)
    answered(target, case.method, path, **{name: parts[name] for name in SENT & parts.keys()})


SENT = {"headers", "params", "json", "data", "files"}


@cache
def operations(target: Target) -> list[Any]:
    """The operations in the description that the target gives of itself."""
    described = httpx.get(f"{target.http}/openapi.json", timeout=60).json()
    found = schemathesis.openapi.from_dict(described).get_all_operations()
    return [each.ok() for each in found if isinstance(each, Ok)]


@cases(0.08)
@given(body=st.dictionaries(FIELDS, VALUES, max_size=4), path=st.sampled_from(("", "/extensions", "/nothing/remix")))
def test_any_json(target: Target, body: dict[str, Any], path: str) -> None:
    answered(target, "POST", f"/v1/videos{path}", content=json.dumps(body))


@cases(0.06)
@given(data=st.data(), headers=st.dictionaries(st.sampled_from(HEADERS), VISIBLE | LIKELY, max_size=3))
def test_any_headers(target: Target, data: st.DataObject, headers: dict[str, str]) -> None:
    method, path = data.draw(paths(target))
    answered(target, method, path, headers=headers)


@cases(0.04)
@given(
    fields=st.dictionaries(
        FIELDS | st.text(max_size=8) | st.just("helios[params][seed]"), st.text(max_size=20), max_size=3
    ),
    name=FIELDS,
    content=st.binary(max_size=100),
)
def test_any_form(target: Target, fields: dict[str, str], name: str, content: bytes) -> None:
    answered(target, "POST", "/v1/videos", data=fields, files={name: ("a.png", content, "image/png")})


FORM = b'--a\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na lake\r\n--a--\r\n'
WHOLE = (
    b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=a\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(FORM)
) + FORM


@cases(0.06)
@given(changes=edits(), cut=st.floats(0, 1), noise=st.binary(max_size=200))
def test_requests_that_are_damaged_or_cut_off(target: Target, changes: list[Edit], cut: float, noise: bytes) -> None:
    for sent in (edited(WHOLE, changes, keep=0), WHOLE[: int(len(WHOLE) * cut)], noise):
        with socket.create_connection(("127.0.0.1", target.http_port), timeout=60) as connection:
            connection.settimeout(SILENCE_S)
            answer = b""
            with suppress(TimeoutError, ConnectionResetError, BrokenPipeError):
                connection.sendall(sent)
                answer = connection.recv(1 << 16)
        assert not answer or int(answer.split()[1]) in CALLERS_FAULT, answer[:300]
    target.check_serving()
