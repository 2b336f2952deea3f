"""`/v1/videos` on the wire: what is taken, how it is mapped, and how bad input is refused."""

import asyncio
import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from helios_services.client import AsyncHeliosClient
from helios_services.config import ServiceConfig
from helios_services.gateway.server import Gateway
from services.gateway.conftest import Worker
from support.gateway import serving

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 100


async def made(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """A video, created."""
    answer = await http.post("/v1/videos", json={"prompt": "a lake", **fields})
    assert answer.status_code == 200, answer.text
    video: dict[str, Any] = answer.json()
    return video


async def test_a_video_as_it_is_created(http: httpx.AsyncClient, client: AsyncHeliosClient) -> None:
    video = await made(http, seconds="4", size="650x380", helios={"params": {"seed": 7}, "labels": {"shot": "1"}})
    assert (video["object"], video["status"], video["progress"]) == ("video", "queued", 0)
    assert (video["size"], video["seconds"]) == ("640x384", "4.125")  # 96 frames are three chunks
    assert (video["prompt"], video["error"], video["completed_at"]) == ("a lake", None, None)
    job = await client.get(video["id"])
    assert (job.params.num_frames, job.params.width, job.params.height, job.params.seed) == (96, 640, 384, 7)
    assert video["helios"]["labels"] == {"shot": "1"}
    assert (await http.get(f"/v1/videos/{video['id']}")).json() == video


@pytest.mark.parametrize(
    ("asked", "given"),
    [("1280x720", "1280x704"), ("1x1", "64x64"), ("99999x99999", "1024x1024"), ("720x1280", "704x1280")],
)
async def test_sizes_become_the_nearest_that_the_model_takes(config: ServiceConfig, asked: str, given: str) -> None:
    model = config.model.model_copy(update={"max_pixels": 1024 * 1024})
    async with (
        serving(config.model_copy(update={"model": model})) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.http_port}") as http,
    ):
        assert (await made(http, size=asked))["size"] == given


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({}, "prompt", "1 to 8,000 characters"),
        ({"prompt": 5}, "prompt", "a text"),
        ({"prompt": "\ud800"}, "prompt", "whole characters"),
        ({"prompt": "a", "seconds": "soon"}, "seconds", "a number of seconds"),
        ({"prompt": "a", "seconds": "nan"}, "seconds", "a number of seconds"),
        ({"prompt": "a", "seconds": -1}, "seconds", "more than 0"),
        ({"prompt": "a", "seconds": 1e9}, "seconds", "at most"),
        ({"prompt": "a", "seconds": True}, "seconds", "a number of seconds"),
        ({"prompt": "a", "size": "big"}, "size", "WIDTHxHEIGHT"),
        ({"prompt": "a", "size": "0x64"}, "size", "WIDTHxHEIGHT"),
        ({"prompt": "a", "colour": "red"}, "colour", "only prompt, model"),
        ({"prompt": "a", "helios": 3}, "helios", "SubmitJobRequest"),
        ({"prompt": "a", "helios": {"nothing": 1}}, "helios", "nothing"),
        ({"prompt": "a", "helios": {"params": {"fps": 0}}}, "helios.params.fps", "120"),
        (
            {"prompt": "a", "seconds": 2, "helios": {"params": {"num_frames": 33}}},
            "seconds",
            "helios.params.num_frames",
        ),
        ({"prompt": "a", "size": "64x64", "helios": {"params": {"width": 64}}}, "size", "helios.params.width"),
        ({"prompt": "a", "helios": {"params": {"height": 100}}}, "helios.params.height", "64"),
        ({"prompt": "a", "helios": {"labels": {"k" * 65: "v"}}}, "helios.labels key", "64"),
        ({"prompt": "a", "input_reference": "cat.png"}, "input_reference", "file_id"),
        ({"prompt": "a", "input_reference": {"image_url": "http://a/b.png"}}, "input_reference", "file_id"),
    ],
)
async def test_bad_fields_are_named_with_value_and_what_is_allowed(
    http: httpx.AsyncClient, body: dict[str, Any], field: str, said: str
) -> None:
    answer = await http.post("/v1/videos", content=json.dumps(body), headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", field), error
    assert said in error["fields"][0]["allowed"], error
    assert error["message"].startswith(f"{field}: {error['fields'][0]['value']} is not allowed")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"a"', b'{"prompt": NaN}', b"\xff", b"[" * 100_000], ids=len)
async def test_what_is_no_object_is_refused(http: httpx.AsyncClient, body: bytes) -> None:
    answer = await http.post("/v1/videos", content=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "body")


async def test_an_unknown_model_and_an_unknown_video(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/videos", json={"prompt": "a", "model": "other"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/content"), ("GET", "/events")):
        answer = await http.request(method, f"/v1/videos/nothing{path}")
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error"), path


async def test_the_same_key_is_the_same_video(http: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "once"}
    answers = [await http.post("/v1/videos", json={"prompt": "a lake"}, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    other = await http.post("/v1/videos", json={"prompt": "a sea"}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "already_exists")
    long = await http.post("/v1/videos", json={"prompt": "a sea"}, headers={"Idempotency-Key": "k" * 129})
    assert long.json()["error"]["param"] == "Idempotency-Key"


async def test_lists_go_on_where_they_ended(http: httpx.AsyncClient) -> None:
    ids = [(await made(http))["id"] for _ in range(3)]
    for order, expected in (("desc", ids[::-1]), ("asc", ids)):
        first = (await http.get("/v1/videos", params={"limit": 2, "order": order})).json()
        assert ([each["id"] for each in first["data"]], first["has_more"]) == (expected[:2], True)
        assert (first["first_id"], first["last_id"]) == (expected[0], expected[1])
        rest = (await http.get("/v1/videos", params={"after": first["last_id"], "order": order})).json()
        assert ([each["id"] for each in rest["data"]], rest["has_more"]) == (expected[2:], False)
    empty = (await http.get("/v1/videos", params={"after": ids[0]})).json()
    assert (empty["data"], empty["last_id"], empty["has_more"]) == ([], None, False)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=nothing", "after"),
        ("after=%00", "after"),
    ],
)
async def test_bad_pages_are_refused(http: httpx.AsyncClient, query: str, field: str) -> None:
    answer = await http.get(f"/v1/videos?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


async def test_what_is_deleted_is_gone(
    http: httpx.AsyncClient, worker: Worker, config: ServiceConfig, tmp_path: Path
) -> None:
    waiting, running, done = [await made(http, helios={"params": {"num_frames": 33}}) for _ in range(3)]
    claims = [await worker.claim() for _ in range(3)]
    by_id = {claim.job.id: claim for claim in claims}
    await worker.append(by_id[running["id"]], 0, 100)
    await worker.append(by_id[done["id"]], 0, 100)
    await worker.publish(by_id[done["id"]], b"video", tmp_path)
    file = Path(config.artifacts) / f"{done['id']}.mp4"
    assert file.exists()
    for video in (waiting, running, done):
        answer = await http.delete(f"/v1/videos/{video['id']}")
        assert answer.json() == {"id": video["id"], "object": "video.deleted", "deleted": True}
        assert (await http.get(f"/v1/videos/{video['id']}")).status_code == 404
        assert (await http.delete(f"/v1/videos/{video['id']}")).status_code == 404
    assert not file.exists()
    assert (await http.get("/v1/videos")).json()["data"] == []
    with pytest.raises(Exception, match="lease"):
        await worker.publish(by_id[running["id"]], b"video", tmp_path)
    left = [key.decode() async for key in worker.store._client.scan_iter() if any(i in key.decode() for i in by_id)]
    assert left == []


async def test_tenants_and_scopes(config: ServiceConfig, keys: dict[str, str], tmp_path: Path) -> None:
    async with (
        serving(config, api_keys_file=str(tmp_path / "keys.yaml")) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.http_port}") as http,
    ):

        async def told(who: str, method: str, path: str = "", **options: Any) -> int:
            headers = {"Authorization": keys[who]}
            return (await http.request(method, f"/v1/videos{path}", headers=headers, **options)).status_code

        answer = await http.post("/v1/videos", json={"prompt": "a"}, headers={"Authorization": keys["alice"]})
        path = f"/{answer.json()['id']}"
        assert [await told("alice", "GET", path), await told("reader", "GET", path)] == [200, 200]
        for each in ("", "/content", "/events", "/hls/index.m3u8"):
            assert await told("bob", "GET", path + each) == 404, each
        assert await told("bob", "DELETE", path) == 404
        assert [await told("reader", "DELETE", path), await told("reader", "POST", json={"prompt": "a"})] == [403, 403]
        assert [await told("narrow", "POST", json={"prompt": "a"}) for _ in range(2)] == [200, 429]
        assert await told("alice", "DELETE", path) == 200


async def test_a_picture_and_a_clip_come_with_the_form(
    http: httpx.AsyncClient, client: AsyncHeliosClient, config: ServiceConfig
) -> None:
    for name, content, kind, field in (
        ("cat.png", PNG, "image/png", "image_id"),
        ("upload", PNG, "application/octet-stream", "image_id"),
        ("cat.mp4", b"clip", "application/octet-stream", "video_id"),
    ):
        form = {
            "prompt": "a cat",
            "seconds": "2",
            "helios[params][seed]": "9",
            "helios[params][pyramid_steps][]": ["1"] * 3,
        }
        answer = await http.post("/v1/videos", data=form, files={"input_reference": (name, content, kind)})
        assert answer.status_code == 200, answer.text
        params = (await client.get(answer.json()["id"])).params
        assert (params.seed, list(params.pyramid_steps)) == (9, [1, 1, 1])
        (stored,) = Path(config.uploads).glob(f"{getattr(params, field)}.*")
        assert stored.read_bytes() == content


@pytest.mark.parametrize(
    ("files", "data", "status", "field"),
    [
        ([("input_reference", ("a.txt", b"text", "text/plain"))], {"prompt": "a"}, 400, "input_reference"),
        ([("input_reference", ("a.png", b"", "image/png"))], {"prompt": "a"}, 400, "input_reference"),
        ([("other", ("a.png", PNG, "image/png"))], {"prompt": "a"}, 400, "other"),
        ([("input_reference", ("a.png", PNG, "image/png"))] * 2, {"prompt": "a"}, 400, "input_reference"),
        ([("input_reference", ("a.png", PNG, "image/png"))], {"prompt": ["a", "b"]}, 400, "prompt"),
        ([("input_reference", ("a.png", PNG, "image/png"))], {"prompt": "a", "helios": "x"}, 400, "helios"),
    ],
)
async def test_bad_forms_are_refused(
    http: httpx.AsyncClient, files: Any, data: dict[str, Any], status: int, field: str
) -> None:
    answer = await http.post("/v1/videos", data=data, files=files)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, field), answer.text


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--a--\r\n"),
        ("multipart/form-data; boundary=a", b"--b\r\n"),
        ("multipart/form-data; boundary=a", b'--a\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nlake'),
        ("multipart/form-data; boundary=a", b"--a\r\n\r\nlake\r\n--a--\r\n"),
        ("multipart/form-data; boundary=" + "a" * 5000, b"--a--"),
        ("multipart/form-data; boundary=a", b"--a\r\n" + b"X: y\r\n" * 50 + b"\r\nlake\r\n--a--\r\n"),
        (
            "multipart/form-data; boundary=a",
            b'--a\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xff\r\n--a--\r\n',
        ),
    ],
)
async def test_what_is_no_form_is_refused(http: httpx.AsyncClient, kind: str, body: bytes) -> None:
    answer = await http.post("/v1/videos", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] in ("body", "prompt")


def endless(port: int, head: bytes, part: bytes) -> tuple[int, bytes]:
    """Sends parts for as long as they are taken; how many bytes those were, and the answer."""
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\n" + head)
        with suppress(OSError):
            while sent < 200_000_000:
                connection.sendall(part)
                sent += len(part)
        return sent, connection.recv(65536)


async def test_a_body_over_the_limit_is_cut_off_early(config: ServiceConfig) -> None:
    media = config.media.model_copy(update={"max_bytes": 100_000})
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    begin = b'--a\r\nContent-Disposition: form-data; name="input_reference"; filename="a.png"\r\n\r\n'
    form = b"Content-Type: multipart/form-data; boundary=a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(config.model_copy(update={"media": media})) as gateway:
        for head in (b"Transfer-Encoding: chunked\r\n\r\n", form + b"%x\r\n" % len(begin) + begin + b"\r\n"):
            sent, answer = await asyncio.to_thread(endless, gateway.http_port, head, piece)
            assert b" 413 " in answer.splitlines()[0]
            assert b"connection: close" in answer.lower()
            assert b"resource_exhausted" in answer
            assert sent < 50_000_000


async def test_strangers_are_refused_before_their_body(
    config: ServiceConfig, keys: dict[str, str], tmp_path: Path
) -> None:
    async with serving(config, api_keys_file=str(tmp_path / "keys.yaml")) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
        writer.write(b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 401 " in head.splitlines()[0]
        assert b"connection: close" in head.lower()
        assert b"authentication_error" in await reader.read()
        writer.close()


async def test_slow_bodies_are_ended(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helios_services.gateway.guard.patience.MESSAGE_S", 0.2)
    for head, first in (
        (b"Content-Type: application/json\r\nContent-Length: 100", b"{"),
        (b"Content-Type: multipart/form-data; boundary=a\r\nTransfer-Encoding: chunked", b"3\r\n--a\r\n"),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
        writer.write(b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n" + first)
        answer = await reader.read()
        assert b" 408 " in answer.splitlines()[0]
        assert b"deadline_exceeded" in answer
        writer.close()
