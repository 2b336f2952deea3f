"""The HTTP door: health, keys, limits, envelopes, connections, and its end."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from helios_services.client import AsyncHeliosClient
from helios_services.config import ConfigError, ServiceConfig
from helios_services.gateway.http import connections
from helios_services.gateway.server import Gateway
from support.gateway import serving
from support.waiting import until


async def said(gateway: Gateway, *parts: bytes) -> bytes:
    """What the door answers to bytes, up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await reader.read()
    finally:
        writer.close()


def error_of(answer: bytes) -> tuple[int, dict[str, Any]]:
    """Status and error of a raw answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


@contextmanager
def patient(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Iterator[None]:
    """How long the door waits for what a client is about to send."""
    with monkeypatch.context() as patch:
        patch.setattr(connections, "MESSAGE_S", seconds)
        patch.setattr("helios_services.gateway.guard.patience.MESSAGE_S", seconds)
        yield


async def test_health(http: httpx.AsyncClient, gateway: Gateway) -> None:
    assert [(await http.get(path)).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    await gateway._http.serving(False)  # type: ignore[union-attr]
    assert [(await http.get(path)).status_code for path in ("/healthz", "/readyz")] == [200, 503]


async def test_models_have_their_limits(http: httpx.AsyncClient, config: ServiceConfig) -> None:
    (model,) = (await http.get("/v1/models")).json()["data"]
    assert (model["id"], model["object"]) == (config.model.name, "model")
    assert model["helios"]["max_frames"] == config.model.max_frames


async def test_unknown_places_are_refused_in_the_envelope(http: httpx.AsyncClient) -> None:
    for method, path, status in (("GET", "/v1/nothing", 404), ("PUT", "/v1/models", 405)):
        answer = await http.request(method, path)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, None)
        assert path in answer.json()["error"]["message"]


async def test_keys_and_what_is_counted(config: ServiceConfig, keys: dict[str, str], tmp_path: Path) -> None:
    async with serving(config, api_keys_file=str(tmp_path / "keys.yaml")) as gateway:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.http_port}") as http:
            stranger = await http.get("/v1/models")
            wrong = await http.get("/v1/models", headers={"Authorization": "Bearer alice.wrong"})
            let_in = await http.get("/v1/models", headers={"Authorization": keys["alice"]})
        assert [answer.status_code for answer in (stranger, wrong, let_in)] == [401, 401, 200]
        assert stranger.headers["WWW-Authenticate"] == "Bearer"
        assert stranger.json()["error"]["type"] == "authentication_error"

        def counted(code: str) -> float | None:
            labels = {"method": "ListModels", "code": code}
            return gateway.metrics.registry.get_sample_value("helios_http_requests_total", labels)

        assert (counted("UNAUTHENTICATED"), counted("OK")) == (2.0, 1.0)


async def test_both_doors_share_their_places(config: ServiceConfig) -> None:
    async with (
        serving(config, max_concurrent_rpcs=1) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.http_port}") as http,
        AsyncHeliosClient(f"127.0.0.1:{gateway.port}") as client,
    ):
        job = await client.submit("a lake")
        async with aclosing(client.watch(job.id)) as changes:
            await anext(changes)
            answer = await http.get("/v1/models")
        assert (answer.status_code, answer.json()["error"]["quota"]) == (429, "concurrent_calls")
        assert answer.headers["Retry-After"] == "1"
        await until(lambda: _let_in(http))


async def _let_in(http: httpx.AsyncClient) -> bool:
    return (await http.get("/v1/models")).status_code == 200


async def test_no_other_origin_unless_configured(config: ServiceConfig) -> None:
    asked = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    for origins, allowed in (((), None), (("https://app.example.com",), "https://app.example.com")):
        async with (
            serving(config, cors_origins=origins) as gateway,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.http_port}") as http,
        ):
            for answer in (
                await http.options("/v1/models", headers=asked),
                await http.get("/v1/models", headers={"Origin": "https://app.example.com"}),
            ):
                assert answer.headers.get("Access-Control-Allow-Origin") == allowed
            other = await http.get("/v1/models", headers={"Origin": "https://evil.example.com"})
            assert "Access-Control-Allow-Origin" not in other.headers


async def test_browsers_are_told_what_pages_may_do(http: httpx.AsyncClient) -> None:
    policy = (await http.get("/v1/models")).headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET  /\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \0\r\n\r\n",
    ],
    ids=["tls", "no host", "no version", "nul"],
)
async def test_what_is_no_request_is_refused(gateway: Gateway, head: bytes) -> None:
    status, error = error_of(await said(gateway, head))
    assert (status, error["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize("header", ["Host: [", "Host: a]b", "Origin: http://[\r\nHost: localhost"])
async def test_addresses_that_are_none_are_refused(gateway: Gateway, header: str) -> None:
    head = f"POST /v1/videos HTTP/1.1\r\n{header}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    status, error = error_of(await said(gateway, head.encode()))
    assert (status, error["code"]) == (403, "permission_denied")


async def test_a_head_without_end_is_cut_off(gateway: Gateway) -> None:
    line = b"X-Long: " + b"a" * 1000 + b"\r\n"
    status, error = error_of(await said(gateway, b"GET / HTTP/1.1\r\nHost: localhost\r\n", line * 40))
    assert status == 400
    assert "16,384" in error["message"]


@pytest.mark.parametrize("head", [b"", b"GET /v1/models HTTP/1.1\r\nHos"], ids=["nothing", "half a head"])
async def test_who_says_nothing_is_sent_away(
    config: ServiceConfig, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    with patient(monkeypatch, 0.2):
        async with serving(config) as gateway:
            assert await said(gateway, head) == b""


async def test_half_a_head_on_a_kept_connection_is_ended_too(
    config: ServiceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with patient(monkeypatch, 0.5):
        async with serving(config) as gateway:
            whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
            writer.write(whole)
            await reader.readuntil(b"ok\n")
            writer.write(whole[:9])
            assert await reader.read() == b""
            writer.close()


async def test_the_end_of_a_gateway_closes_connections(config: ServiceConfig) -> None:
    async with serving(config) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http_port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"ok\n")
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", gateway.http_port)


async def test_a_port_in_use_is_named(config: ServiceConfig, gateway: Gateway) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.http_port: \d+: 127\.0\.0\.1:\d+ cannot be bound"):
        await serving(config, http_port=gateway.http_port).__aenter__()


async def test_no_door_where_none_is_wanted(config: ServiceConfig) -> None:
    async with serving(config, http_port=None) as gateway:
        assert gateway.http_port == 0
