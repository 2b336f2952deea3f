"""Live sessions over a WebSocket: the same as over gRPC, in JSON and binary messages."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from helios.v1 import video_generation_pb2 as pb
from helios_engine.errors import InvalidField
from helios_services.config import JobsConfig, ServiceConfig
from helios_services.gateway.guard import patience
from helios_services.gateway.guard.refusal import Refusal
from helios_services.gateway.http import realtime, realtime_messages
from helios_services.gateway.http.realtime_frames import CHUNK, HEADER, INIT
from helios_services.gateway.server import Gateway
from helios_services.jobs.records import Verdict
from services.gateway.conftest import Worker, fragment
from support.gateway import serving
from support.waiting import until

SIZE = 1000
FIELDS = st.sampled_from(
    [field.name for kind in (pb.SubmitJobRequest, pb.GenerationParams, pb.Played) for field in kind.DESCRIPTOR.fields]
)
KINDS = st.sampled_from(realtime_messages.COMMANDS)
ROOT = Path(__file__).parents[4]


@pytest.fixture
def config(config: ServiceConfig) -> ServiceConfig:
    jobs = JobsConfig(session_grace_s=600.0, live_window_chunks=4, live_lead_chunks=2, lease_s=600.0)
    return config.model_copy(update={"jobs": jobs})


def url(gateway: Gateway) -> str:
    """Where the socket is opened."""
    return f"ws://127.0.0.1:{gateway.http_port}/v1/realtime/video"


async def say(connection: ClientConnection, kind: str, **fields: Any) -> None:
    """A message."""
    await connection.send(json.dumps({"type": kind, **fields}))


async def next_message(connection: ClientConnection, kind: str) -> dict[str, Any]:
    """The next of a kind; others are skipped, bytes too."""
    async with asyncio.timeout(60):
        async for message in connection:
            if isinstance(message, str) and (content := json.loads(message))["type"] == kind:
                return dict(content)
    raise AssertionError(f"no {kind}")


async def next_frame(connection: ClientConnection) -> tuple[int, int, bytes]:
    """The next bytes: kind, chunk and what follows the header."""
    async with asyncio.timeout(60):
        async for message in connection:
            if isinstance(message, bytes):
                kind, last, part, index = HEADER.unpack_from(message)
                assert (last, part) == (1, 0)
                return kind, index, message[HEADER.size :]
    raise AssertionError("no frame")


@asynccontextmanager
async def started(gateway: Gateway, **params: Any) -> AsyncIterator[tuple[ClientConnection, dict[str, Any]]]:
    """A session and its job."""
    async with connect(url(gateway), subprotocols=[websockets.Subprotocol(realtime.PROTOCOL)]) as connection:
        assert connection.subprotocol == realtime.PROTOCOL
        await say(connection, "start", params={"prompt": "a lake"} | params)
        yield connection, (await next_message(connection, "job"))["job"]


async def test_a_session_from_start_to_end(gateway: Gateway, worker: Worker, tmp_path: Path) -> None:
    async with started(gateway, open_ended=True) as (connection, job):
        assert (job["state"], job["priority"]) == ("JOB_STATE_QUEUED", "PRIORITY_INTERACTIVE")
        claim = await worker.claim()
        await worker.store.begin_chunk(claim.lease, 0, 0)
        await worker.append(claim, 0, SIZE)
        assert await next_frame(connection) == (INIT, 0, b"init")
        chunk = (await next_message(connection, "chunk"))["chunk"]
        assert (chunk["index"], chunk["duration"], chunk["size_bytes"]) == (0, "1.375s", str(SIZE))
        assert await next_frame(connection) == (CHUNK, 0, fragment(0, SIZE))
        await say(connection, "prompt", prompt="a sea", interpolation_chunks=0)
        assert await next_message(connection, "prompt") == {"type": "prompt", "message": 1, "chunk_index": 1}
        await say(connection, "prompt", prompt="")
        refused = await next_message(connection, "refused")
        assert (refused["message"], refused["error"]["param"]) == (2, "prompt")
        await say(connection, "pause")
        assert (await next_message(connection, "job"))["job"]["paused"]
        assert (await worker.store.begin_chunk(claim.lease, 1, 0)).verdict is Verdict.PAUSED
        await say(connection, "resume")
        assert not (await next_message(connection, "job"))["job"]["paused"]
        await worker.store.begin_chunk(claim.lease, 1, 0)
        await worker.append(claim, 1, SIZE)
        await say(connection, "stop")

        async def stopped() -> bool:
            return (await worker.store.begin_chunk(claim.lease, 2, 0)).verdict is Verdict.STOPPED

        await until(stopped)
        await worker.publish(claim, b"video", tmp_path)
        assert (await next_frame(connection))[:2] == (CHUNK, 1)
        states = [json.loads(message) async for message in connection if isinstance(message, str)]
        assert [state["job"]["state"] for state in states if state["type"] == "job"][-1] == "JOB_STATE_SUCCEEDED"
        assert connection.close_code == realtime.ENDED


async def test_a_dropped_socket_goes_on_at_its_chunk(gateway: Gateway, worker: Worker) -> None:
    async with started(gateway, num_frames=33 * 3) as (connection, job):
        claim = await worker.claim()
        for index in range(2):
            await worker.append(claim, index, SIZE)
        assert [(await next_frame(connection))[:2] for _ in range(2)] == [(INIT, 0), (CHUNK, 0)]
        connection.transport.abort()
    await until(lambda: active(gateway) == 0.0)  # the gateway knows that its client has gone
    async with connect(url(gateway)) as again:
        await say(again, "attach", job_id=job["id"], from_chunk=1)
        assert (await next_message(again, "job"))["job"]["id"] == job["id"]
        assert [(await next_frame(again))[:2] for _ in range(2)] == [(INIT, 0), (CHUNK, 1)]
        await worker.append(claim, 2, SIZE)
        assert await next_frame(again) == (CHUNK, 2, fragment(2, SIZE))


def active(gateway: Gateway) -> float | None:
    """Sessions through this door."""
    return gateway.metrics.registry.get_sample_value("helios_http_active_requests", {"method": "Interact"})


async def test_chunks_are_sent_as_the_viewer_plays_them(gateway: Gateway, worker: Worker) -> None:
    async with started(gateway, num_frames=33 * 4) as (connection, _):
        await say(connection, "played", chunks=0)
        await say(connection, "prompt", prompt="a sea")
        await next_message(connection, "prompt")
        claim = await worker.claim()
        for index in range(4):  # a worker that does not ask whether it should
            await worker.append(claim, index, SIZE)
        assert [(await next_frame(connection))[:2] for _ in range(3)] == [(INIT, 0), (CHUNK, 0), (CHUNK, 1)]
        await say(connection, "prompt", prompt="")
        await next_message(connection, "refused")  # answered, while two chunks wait
        await say(connection, "played", chunks=2)
        assert [(await next_frame(connection))[:2] for _ in range(2)] == [(CHUNK, 2), (CHUNK, 3)]


@pytest.mark.parametrize(
    ("first", "code", "said"),
    [
        ("{", 4400, "a JSON object"),
        ("[1]", 4400, "a JSON object"),
        ("[" * 60_000, 4400, "a JSON object"),
        ('{"type": "begin"}', 4400, "type: 'begin' is not allowed; allowed: start, attach"),
        ('{"type": "pause"}', 4400, "start or attach"),
        ('{"type": "start", "params": {"promt": "a lake"}}', 4400, '"promt"'),
        ('{"type": "start", "params": {"prompt": "a lake", "seed": "x"}}', 4400, "seed"),
        ('{"type": "start", "params": {"prompt": "", "num_frames": -1}}', 4400, "num_frames: -1"),
        ('{"type": "attach", "job_id": "nothing"}', 4404, "does not exist"),
        (b"bytes", 4400, "bytes are not allowed"),
    ],
)
async def test_sessions_that_begin_badly(gateway: Gateway, first: str | bytes, code: int, said: str) -> None:
    async with connect(url(gateway)) as connection:
        await connection.send(first)
        error = (await next_message(connection, "error"))["error"]
        assert said in error["message"]
        await connection.wait_closed()
        assert connection.close_code == code


async def test_messages_beyond_the_limit_end_the_socket(gateway: Gateway) -> None:
    async with connect(url(gateway)) as connection:
        await connection.send('{"type": "start", "params": {"prompt": "' + "x" * 70_000)
        with pytest.raises(ConnectionClosed):
            await connection.recv()
    await until(lambda: active(gateway) == 0.0)


async def test_a_client_that_says_nothing_is_sent_away(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "MESSAGE_S", 0.1)
    monkeypatch.setattr(realtime, "ALIVE_S", 0.02)
    async with connect(url(gateway)) as connection:
        assert await next_message(connection, "alive") == {"type": "alive"}
        assert (await next_message(connection, "error"))["error"]["code"] == "deadline_exceeded"


async def test_who_may_begin(config: ServiceConfig, keys: dict[str, str], tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.write_text("s" * 40)
    files = {"api_keys_file": str(tmp_path / "keys.yaml"), "token_secrets_file": str(secrets)}
    async with serving(config, **files) as gateway:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.http_port}") as http:
            made = await http.post("/v1/realtime/tokens", json={}, headers={"Authorization": keys["alice"]})
        token = made.json()["token"]
        key = keys["alice"].removeprefix("Bearer ")

        async def code(*protocols: str, **headers: str) -> int | None:
            offered = [websockets.Subprotocol(name) for name in protocols] or None
            async with connect(url(gateway), subprotocols=offered, additional_headers=headers) as connection:
                with suppress(ConnectionClosed):  # it does not wait for what a stranger says
                    await say(connection, "start", params={"prompt": "a lake"})
                kind = "job" if "Bearer" in str(headers) or f"helios.token.{token}" in protocols else "error"
                await next_message(connection, kind)
                if kind == "job":
                    return None
                await connection.wait_closed()
                return connection.close_code

        assert await code(realtime.PROTOCOL) == 4401
        assert await code(realtime.PROTOCOL, f"helios.token.{key}") == 4401  # an API key belongs into no page
        assert await code(realtime.PROTOCOL, "helios.token.a.b.c") == 4401
        assert await code(realtime.PROTOCOL, f"helios.token.{token}") is None
        assert await code(Authorization=keys["alice"]) is None  # a backend's own


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "elsewhere.example"}, 403),
        ({"Host": "elsewhere.example", "Origin": "http://elsewhere.example"}, 403),  # a name made to lead here
        ({"Origin": "https://app.example.com"}, 200),
        ({}, 200),
    ],
)
async def test_pages_of_other_origins_begin_nothing(
    config: ServiceConfig, headers: dict[str, str], status: int
) -> None:
    async with serving(config, cors_origins=("https://app.example.com",)) as gateway:
        own = f"127.0.0.1:{gateway.http_port}"
        async with httpx.AsyncClient(base_url=f"http://{own}") as http:
            answer = await http.post("/v1/media", headers={"Content-Type": "image/png"} | headers, content=b"x")
            assert (answer.status_code == 403) is (status == 403)
            upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
            upgrade |= {"Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="}
            async with http.stream("GET", "/v1/realtime/video", headers=upgrade | headers) as answer:
                assert answer.status_code == (101 if status == 200 else 403)


async def test_a_picture_is_uploaded_and_named_in_a_start(http: httpx.AsyncClient, gateway: Gateway) -> None:
    answer = await http.post(
        "/v1/media", headers={"Content-Type": "image/png"}, content=b"\x89PNG\r\n\x1a\n" + b"x" * 100
    )
    assert answer.status_code == 201, answer.text
    async with started(gateway, image_id=answer.json()["id"]) as (_, job):
        assert job["params"]["image_id"] == answer.json()["id"]
    refused = await http.post("/v1/media", headers={"Content-Type": "text/plain"}, content=b"x")
    assert (refused.status_code, "text/plain" in refused.text) == (400, True)


def test_the_page_of_messages_is_true() -> None:
    page = (ROOT / "docs" / "realtime.md").read_text()

    def rows(title: str) -> list[str]:
        table = page.split(f"\n## {title}\n")[1].split("\n## ")[0]
        return [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]

    assert tuple(rows("What a client says")) == realtime_messages.COMMANDS
    assert tuple(rows("What the service says")) == realtime_messages.ANSWERS
    assert f"{HEADER.size} bytes" in page


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS | st.text(max_size=10), inner, max_size=4),
    max_leaves=6,
)


@given(
    message=JSON | st.text() | st.builds(lambda kind, rest: rest | {"type": kind}, KINDS, st.dictionaries(FIELDS, JSON))
)
@settings(max_examples=1000, derandomize=True)
def test_whatever_is_said_is_a_command_or_is_refused(message: Any) -> None:
    text = message if isinstance(message, str) else json.dumps(message)
    with suppress(Refusal, InvalidField):
        assert realtime_messages.command(text).WhichOneof("command") in realtime_messages.COMMANDS


@pytest.mark.parametrize("path", ["/", "/v1/realtime/nothing", "/index.html"])
async def test_a_socket_to_another_path_is_refused(gateway: Gateway, path: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"ws://127.0.0.1:{gateway.http_port}{path}")
    assert caught.value.response.status_code == 403
