"""Headers that no well-behaved client sends: they open nothing, end nobody else's call, and stand in no log."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
import yaml
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import VideoGenerationStub
from helios_services.client import AsyncHeliosClient, Connection
from helios_services.config import ServiceConfig
from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.keys import new_key
from helios_services.gateway.server import Gateway
from helios_services.telemetry.logs import configure_logging
from support.raw_http2 import HeadersOnly
from support.waiting import until

UNAUTHENTICATED = "16"
KEY, ENTRY = new_key("k", "acme", frozenset({Scope.READ, Scope.SUBMIT}))
SECRET = KEY.partition(".")[2]
GOOD, WRONG = ("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}x")
STRANGE: dict[str, tuple[tuple[str, str | bytes], ...]] = {
    "two, the wrong one last": (GOOD, WRONG),
    "two, the wrong one first": (WRONG, GOOD),
    "twice the same": (GOOD, GOOD),
    "of two in one": (("authorization", f"Bearer {KEY}, Bearer {KEY}"),),
    "binary": (("authorization-bin", f"Bearer {KEY}"),),
    "another scheme": (("authorization", f"Basic {KEY}"),),
    "in a header of another name": (("x-authorization", f"Bearer {KEY}"),),
    "not ASCII": (("authorization", f"Bearer {KEY}é".encode("latin-1")),),
    "no text": (("authorization", b"Bearer \xff\xfe" + KEY.encode()),),
    "with NUL": (("authorization", b"Bearer " + KEY.encode() + b"\0"),),
    "without secret": (("authorization", "Bearer k."),),
    "without id": (("authorization", f"Bearer .{SECRET}"),),
    "empty": (("authorization", ""),),
}


@pytest.fixture
def config(config: ServiceConfig, tmp_path: Path) -> ServiceConfig:
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({"keys": [ENTRY.model_dump(mode="json")]}))
    gateway = config.gateway.model_copy(update={"api_keys_file": str(tmp_path / "keys.yaml")})
    return config.model_copy(update={"gateway": gateway})


@pytest.fixture(autouse=True)
def debugging() -> Iterator[None]:
    last_resort = logging.lastResort
    configure_logging("debug")
    yield
    structlog.reset_defaults()
    logging.lastResort = last_resort


def status(port: int, *headers: tuple[str, str | bytes]) -> str:
    """The grpc-status of a call with these headers; "closed" if the server ends the connection."""
    connection = HeadersOnly(port)
    try:
        connection.begin(["GetJob"], *headers)
        (code,) = connection.answers()
        return code
    except (TimeoutError, ConnectionError):
        return "closed"
    finally:
        connection.close()


@pytest.mark.parametrize("headers", STRANGE.values(), ids=STRANGE.keys())
async def test_strange_headers_open_nothing_and_are_not_logged(
    gateway: Gateway, capfd: pytest.CaptureFixture[str], headers: tuple[tuple[str, str | bytes], ...]
) -> None:
    assert await asyncio.to_thread(status, gateway.port, *headers) in (UNAUTHENTICATED, "13", "closed")
    async with AsyncHeliosClient(f"127.0.0.1:{gateway.port}", Connection(api_key=KEY)) as client:
        assert (await client.submit("a lake")).id
    out, err = capfd.readouterr()
    assert SECRET not in out + err


async def test_strangers_make_no_spans(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor decide what is recorded. Of callers, a trace that is none is begun anew."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    parent = ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")
    assert await asyncio.to_thread(status, gateway.port, parent) == UNAUTHENTICATED
    assert await asyncio.to_thread(status, gateway.port, parent, WRONG) == UNAUTHENTICATED
    assert exporter.get_finished_spans() == ()

    async def called(*headers: tuple[str, str]) -> int:
        exporter.clear()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
            stub: Any = VideoGenerationStub(channel)
            await stub.ListModels(pb.ListModelsRequest(), metadata=(GOOD, *headers))
        await until(exporter.get_finished_spans)
        (span,) = exporter.get_finished_spans()
        assert span.context is not None
        return int(span.context.trace_id)

    assert await called(parent) == int("a" * 32, 16)
    for broken in ("", "00-zz", "x" * 8000, f"00-{'0' * 32}-{'b' * 16}-01"):
        assert await called(("traceparent", broken)) not in (0, int("a" * 32, 16))
