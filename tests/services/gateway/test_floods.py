"""Thousands of calls that say no more than their headers, beside callers whose calls are all answered."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml

from helios.v1 import video_generation_pb2 as pb
from helios_services.client import AsyncHeliosClient, Connection
from helios_services.config import ServiceConfig
from helios_services.gateway.grpc import open_calls
from helios_services.gateway.guard import patience
from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.keys import new_key
from helios_services.gateway.server import Gateway
from support.raw_http2 import HeadersOnly, RawClient
from support.waiting import until

CALLS, CONNECTIONS = 4000, 8
METHODS = ("GetJob", "SubmitJob", "WatchJob", "GenerateVideo", "UploadMedia", "Interact")
OK, DEADLINE_EXCEEDED, EXHAUSTED, UNAVAILABLE, UNAUTHENTICATED = "0", "4", "8", "14", "16"
GOOD_CALLS = 200
KEY_LIMIT = 300


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    made = {name: new_key(name, name, frozenset(Scope) - {Scope.ADMIN}) for name in ("good", "greedy")}
    entries = [entry.model_dump(mode="json") for _, entry in made.values()]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({"keys": entries}))
    return {name: key for name, (key, _) in made.items()}


@pytest.fixture
def config(config: ServiceConfig, keys: dict[str, str], tmp_path: Path) -> ServiceConfig:
    options: dict[str, Any] = {"api_keys_file": str(tmp_path / "keys.yaml"), "max_concurrent_rpcs_per_key": KEY_LIMIT}
    return config.model_copy(update={"gateway": config.gateway.model_copy(update=options)})


@pytest.fixture
async def good(gateway: Gateway, keys: dict[str, str]) -> AsyncIterator[AsyncHeliosClient]:
    async with AsyncHeliosClient(f"127.0.0.1:{gateway.port}", Connection(api_key=keys["good"])) as client:
        yield client


class Flood:
    """Calls that are pending, on several connections."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: list[HeadersOnly] = []

    def begin(self, *headers: tuple[str, str]) -> None:
        """Sends the headers of all calls."""
        for _ in range(CONNECTIONS):
            self._open.append(HeadersOnly(self._port))
            self._open[-1].begin((METHODS[number % len(METHODS)] for number in range(CALLS // CONNECTIONS)), *headers)

    def answers(self) -> Counter[str]:
        """Waits for every call's status."""
        return sum((connection.answers() for connection in self._open), Counter[str]())

    def close(self) -> None:
        for connection in self._open:
            connection.close()


@pytest.fixture
def flood(gateway: Gateway) -> Iterator[Flood]:
    flood = Flood(gateway.port)
    yield flood
    flood.close()


async def every_call_is_answered(client: AsyncHeliosClient) -> None:
    """Unary and streaming ones, many at a time."""
    job = await client.submit("a lake")

    async def watched() -> str:
        async with aclosing(client.watch(job.id)) as changes:
            return (await anext(changes)).id

    answers = await asyncio.gather(*(client.get(job.id) for _ in range(GOOD_CALLS)))
    assert [answer.id for answer in answers] == [job.id] * GOOD_CALLS
    assert await asyncio.gather(*(watched() for _ in range(20))) == [job.id] * 20


async def test_strangers_hold_nothing_that_a_caller_needs(good: AsyncHeliosClient, flood: Flood) -> None:
    await asyncio.gather(asyncio.to_thread(flood.begin), every_call_is_answered(good))
    await every_call_is_answered(good)
    assert await asyncio.to_thread(flood.answers) == {UNAUTHENTICATED: CALLS}  # none of them has sent its message


async def test_a_greedy_key_holds_its_own_share_only(
    good: AsyncHeliosClient, gateway: Gateway, flood: Flood, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "MESSAGE_S", 60.0)
    authorization = ("authorization", f"Bearer {keys['greedy']}")
    await asyncio.gather(asyncio.to_thread(flood.begin, authorization), every_call_is_answered(good))
    read = gateway.metrics.registry.get_sample_value

    def held() -> float:
        return sum(read("helios_grpc_active_requests", {"method": method}) or 0.0 for method in METHODS)

    def refused() -> float:
        codes = [{"method": method, "code": "RESOURCE_EXHAUSTED"} for method in METHODS]
        return sum(read("helios_grpc_requests_total", labels) or 0.0 for labels in codes)

    await until(lambda: refused() == CALLS - KEY_LIMIT)
    await until(lambda: held() == KEY_LIMIT)  # the other's calls have ended
    await every_call_is_answered(good)
    await until(lambda: held() == KEY_LIMIT)  # the greedy one's were there all the time
    assert refused() == CALLS - KEY_LIMIT


async def test_what_a_key_holds_in_silence_is_taken_back(
    good: AsyncHeliosClient, flood: Flood, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "MESSAGE_S", 0.2)
    await asyncio.to_thread(flood.begin, ("authorization", f"Bearer {keys['good']}"))
    answers = await asyncio.to_thread(flood.answers)
    assert set(answers) == {DEADLINE_EXCEEDED, EXHAUSTED}
    assert answers.total() == CALLS
    monkeypatch.setattr(patience, "MESSAGE_S", 60.0)  # for a machine that is busy
    await every_call_is_answered(good)  # with the same key


@pytest.mark.parametrize("method", ["GetJob", "UploadMedia"])
async def test_half_a_message_is_no_message(
    gateway: Gateway, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(patience, "MESSAGE_S", 0.2)

    def drip() -> str:
        with RawClient(gateway.port) as client:
            client.greet()
            stream = client.begin(method, ("authorization", f"Bearer {keys['good']}"))
            client.http2.send_data(stream, b"\0\0\0\0\x0a" + b"\x0a")  # ten bytes are announced, one comes
            client.flush()
            return client.status(stream)

    assert await asyncio.to_thread(drip) == DEADLINE_EXCEEDED


async def test_an_upload_that_pauses_ends(
    gateway: Gateway, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "MESSAGE_S", 0.5)

    def pause() -> str:
        metadata = pb.UploadMediaRequest(metadata=pb.MediaMetadata(content_type="image/png")).SerializeToString()
        with RawClient(gateway.port) as client:
            client.greet()
            stream = client.begin("UploadMedia", ("authorization", f"Bearer {keys['good']}"))
            client.http2.send_data(stream, b"\0" + len(metadata).to_bytes(4, "big") + metadata)
            client.flush()
            return client.status(stream)

    assert await asyncio.to_thread(pause) == DEADLINE_EXCEEDED


async def test_a_call_that_ends_without_its_message_is_the_callers_fault(
    gateway: Gateway, keys: dict[str, str]
) -> None:
    def empty(method: str) -> str:
        with RawClient(gateway.port) as client:
            client.greet()
            stream = client.begin(method, ("authorization", f"Bearer {keys['good']}"))
            client.http2.end_stream(stream)
            client.flush()
            return client.status(stream)

    for method in METHODS:
        assert await asyncio.to_thread(empty, method) == "3", method


async def test_open_calls_make_room_for_those_that_ask_something(gateway: Gateway, good: AsyncHeliosClient) -> None:
    """Health needs no key: silent calls to it neither end it for others nor reach the API's limits."""

    def watchers() -> str:
        with RawClient(gateway.port) as client:
            client.greet()
            while not client.events():
                pass
            check, watch = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
            silent = [client.begin(path) for path in (check, watch) * open_calls.MOST]
            client.flush()
            asked = client.call(check, b"")
            oldest = set(silent[: open_calls.MOST])
            answers = client.statuses({asked, *oldest})
            assert {answers[stream] for stream in oldest} == {UNAVAILABLE}
            return answers[asked]

    assert await asyncio.to_thread(watchers) == OK
    await every_call_is_answered(good)
