"""Webhooks, received by a real HTTP server from a real gateway."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from helios_services.client import AsyncHeliosClient, Connection, HeliosError
from helios_services.config import (
    ConfigError,
    GatewayConfig,
    JobsConfig,
    RedisConfig,
    ServiceConfig,
    WebhookPlaces,
    WebhooksConfig,
)
from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.keys import new_key
from helios_services.gateway.server import Gateway
from helios_services.jobs.connector import Connector
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import JobFailure, JobSpec
from helios_services.webhooks.sender import CALLS_PER_LANE
from services.gateway.conftest import BY_HAND, Worker
from support.gateway import serving
from support.redis_clients import async_client
from support.waiting import until

SECRETS = ("whsec_" + "b2xk" * 8, "whsec_" + "bmV3" * 8)


@dataclass
class Receiver:
    """What was received; `answers` are given in turn, then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    calls: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    raw_paths: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        self.calls.append((request.path, dict(request.headers), await request.text()))
        self.raw_paths.append(request.raw_path)
        status = self.answers.pop(0) if self.answers else 200
        return web.Response(status=status, headers={"location": "/elsewhere"} if status == 302 else {})

    async def called(self, calls: int) -> None:
        await until(lambda: len(self.calls) >= calls)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, body in self.calls]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"
    yield receiver
    await runner.cleanup()


@pytest.fixture
def config(redis: RedisConfig, tmp_path: Path, receiver: Receiver) -> ServiceConfig:
    secret_file = tmp_path / "secrets"
    secret_file.write_text("\n".join(SECRETS))
    webhooks = WebhooksConfig(
        urls=(receiver.url,),
        secret_file=str(secret_file),
        first_wait_s=0.05,
        max_tries=3,
        timeout_s=60,
        internal_networks=("127.0.0.0/8",),
    )
    gateway = GatewayConfig(port=0, http_port=None, drain_s=1.5)
    return ServiceConfig(state_dir=tmp_path, redis=redis, jobs=BY_HAND, gateway=gateway, webhooks=webhooks)


async def test_every_end_is_told_once_signed_and_without_prompts(
    client: AsyncHeliosClient, worker: Worker, receiver: Receiver, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"num_frames": 33, "webhook_url": f"{receiver.url}/x?y=1", "labels": {"order": "7"}}
    jobs = [await client.submit("a secret lake", **options) for _ in range(3)]
    await client.submit("a lake", num_frames=33)  # nobody wants to know
    claim = await worker.claim()
    await worker.append(claim, 0, size=10)
    await worker.publish(claim, b"video", tmp_path)
    claim = await worker.claim()
    await worker.store.fail(claim.lease, JobFailure(reason="GENERATION_FAILED", message="why"))
    await client.cancel(jobs[2].id)
    await client.cancel((await worker.claim()).job.id)
    await receiver.called(3)
    await asyncio.sleep(0.5)
    told = {event["data"]["id"]: event for event in receiver.events()}
    assert [told[job.id]["type"] for job in jobs] == ["job.succeeded", "job.failed", "job.cancelled"]
    assert len(receiver.calls) == 3
    assert told[jobs[0].id]["data"]["labels"] == {"order": "7"}
    assert told[jobs[1].id]["data"]["error"]["reason"] == "GENERATION_FAILED"
    for path, headers, body in receiver.calls:
        assert path == "/hooks/x"
        assert "secret lake" not in body
        for secret in SECRETS:
            Webhook(secret).verify(body, headers)


@pytest.mark.parametrize("status", [500, 404, 302])
async def test_a_call_is_made_again_with_the_same_id_until_it_is_taken(
    client: AsyncHeliosClient, receiver: Receiver, status: int
) -> None:
    receiver.answers = [status]
    job = await client.submit("a lake", num_frames=33, webhook_url=receiver.url)
    await client.cancel(job.id)
    await receiver.called(2)
    assert len({headers["webhook-id"] for _, headers, _ in receiver.calls}) == 1
    assert {path for path, _, _ in receiver.calls} == {"/hooks"}  # a redirect is not followed


async def test_what_is_called_is_what_was_allowed_byte_for_byte(client: AsyncHeliosClient, receiver: Receiver) -> None:
    tail = "/%41%2b%7e~a/b%20c//d?q=%41+%2B&x=%25&y=a,b;c"
    job = await client.submit("a lake", num_frames=33, webhook_url=receiver.url + tail)
    await client.cancel(job.id)
    await receiver.called(1)
    assert receiver.raw_paths == ["/hooks" + tail]


@pytest.mark.parametrize("host", ["hooks.example", "127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_an_allowed_name_that_leads_inside_is_not_called(
    config: ServiceConfig, receiver: Receiver, worker: Worker, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """The attack: a receiver's owner points its name at this machine, or at the cloud's metadata."""
    resolve = socket.getaddrinfo

    def rebound(name: Any, port: Any, *args: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if name == "hooks.example" else name, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    url = receiver.url.replace("127.0.0.1", host)
    webhooks = config.webhooks.model_copy(update={"internal_networks": (), "urls": (url,)})
    async with (
        serving(config.model_copy(update={"webhooks": webhooks})) as gateway,
        AsyncHeliosClient(f"127.0.0.1:{gateway.port}") as client,
    ):
        job = await client.submit("a lake", num_frames=33, webhook_url=url)
        await client.cancel(job.id)
        read = gateway.metrics.registry.get_sample_value
        await until(lambda: read("helios_webhooks_total", {"outcome": "given_up"}))
    assert receiver.calls == []


async def test_it_is_given_up_after_the_last_try(
    client: AsyncHeliosClient, receiver: Receiver, gateway: Gateway
) -> None:
    receiver.answers = [503] * 9
    job = await client.submit("a lake", num_frames=33, webhook_url=receiver.url)
    await client.cancel(job.id)
    read = gateway.metrics.registry.get_sample_value
    await until(lambda: read("helios_webhooks_total", {"outcome": "given_up"}))
    await asyncio.sleep(0.5)
    assert len(receiver.calls) == 3
    assert read("helios_webhooks_total", {"outcome": "failed"}) == 2


async def test_a_sender_that_dies_is_followed_by_another(redis: RedisConfig) -> None:
    store = Connector(redis, JobsConfig()).store()
    params = {"prompt": "a lake", "fps": 24}
    await store.submit("a", JobSpec(model="m", params=params, chunks_total=1, webhook_url="https://x"))
    await store.cancel("a")
    first = await store.due_webhook(uuid4().hex, lease_s=600)
    assert first is not None
    assert await store.due_webhook(uuid4().hex, lease_s=600) is None
    async with async_client(redis.url) as client:
        webhooks = Keys(redis.namespace).of("webhooks", first.lane)
        due_ms = await client.zscore(webhooks, first.event)
        seconds, _ = await client.time()
        assert due_ms is not None
        assert 500_000 < due_ms - 1000 * seconds <= 601_000
        await client.zadd(webhooks, {first.event: 1})  # the sender's time is over
        await client.zadd(Keys(redis.namespace).of("webhook_lanes"), {first.lane: 1})
    second = await store.due_webhook(uuid4().hex, lease_s=60)
    assert second is not None
    assert (second.event, first.tries, second.tries) == (first.event, 1, 2)
    await store.settle_webhook(second)
    assert await store.due_webhook(uuid4().hex, lease_s=60) is None
    await store.close()


async def test_an_end_that_was_taken_back_is_not_told(redis: RedisConfig) -> None:
    store = Connector(redis, JobsConfig()).store()
    params = {"prompt": "a lake", "fps": 24}
    await store.submit("a", JobSpec(model="m", params=params, chunks_total=1, webhook_url="https://x"))
    claim = await store.claim("m", "w", "n")
    assert claim is not None
    await store.fail(claim.lease, JobFailure(reason="WORKER_LOST", message="why"))
    await store.requeue("a", "nonce")
    assert await store.due_webhook(uuid4().hex, lease_s=60) is None
    await store.cancel("a")
    assert await store.due_webhook(uuid4().hex, lease_s=60) is not None
    await store.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/hooks",
        "https://HOST/hooks",
        "http://user@HOST/hooks",
        "http://HOST/other",
        "http://HOST/hooksother",
        "http://HOST/hooks/../other",
        "http://HOST/hooks/%2e%2E/other",
        "http://HOST/hooks/a%2F..",
        "http://HOST/hooks/..;/other",
        "http://HOST/hooks/%252e%252e/other",
        "http://HOST/hooks\nx",
        "http://HOST/hooks#x",
        "ftp://HOST/hooks",
        "http://HOST/hooks/" + "x" * 3000,
        "http://[::1/hooks",
        "http://HOST/hooks/%",
        "http://HOST/hooks/%zz",
        "http://HOST/hooks/%2",
        "http://HOST/hooks/x?y=%",
        "http://HO%53T/hooks",
    ],
)
async def test_only_allowed_places_are_called(client: AsyncHeliosClient, receiver: Receiver, url: str) -> None:
    url = url.replace("HOST", receiver.url.removeprefix("http://").removesuffix("/hooks"))
    with pytest.raises(HeliosError, match=r"webhook_url.*is not allowed; allowed: URLs at or below"):
        await client.submit("a lake", webhook_url=url)


@pytest.mark.parametrize("content", ["", "\n", "whsec_%%%", "whsec_"])
async def test_secrets_are_checked_at_the_start_and_not_told(
    config: ServiceConfig, tmp_path: Path, content: str
) -> None:
    (tmp_path / "secrets").write_text(content)
    with pytest.raises(ConfigError, match=r"webhooks\.secret_file") as caught:
        await Gateway(config).start()
    assert "%%%" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"urls": ["https://x/"]}, {"urls": ["nowhere"], "secret_file": "s"}])
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"secret_file must be set|must be an http or https URL"):
        WebhooksConfig.model_validate(settings)


# ---- each tenant's own ----


class Silent:
    """A place that takes calls and never answers."""

    def __init__(self) -> None:
        self.url, self.calls = "", 0
        self._go = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.calls += 1
        await self._go.wait()
        return web.Response()

    def let_go(self) -> None:
        self._go.set()


@pytest.fixture
async def silent() -> AsyncIterator[Silent]:
    silent = Silent()
    app = web.Application()
    app.router.add_post("/{path:.*}", silent.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    silent.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"
    yield silent
    silent.let_go()
    await runner.cleanup()


@dataclass(frozen=True)
class Tenants:
    """Two tenants of a gateway: `slow` has a silent place, `quick` one that answers."""

    slow: AsyncHeliosClient
    quick: AsyncHeliosClient


SLOW_SECRET, QUICK_SECRET = "whsec_" + "c2xv" * 8, "whsec_" + "cXVp" * 8


@pytest.fixture
async def tenants(redis: RedisConfig, tmp_path: Path, receiver: Receiver, silent: Silent) -> AsyncIterator[Tenants]:
    keys = {name: new_key(name, name, frozenset(Scope) - {Scope.ADMIN}) for name in ("slow", "quick")}
    entries = [entry.model_dump(mode="json") for _, entry in keys.values()]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({"keys": entries}))
    for name, secret in (("slow", SLOW_SECRET), ("quick", QUICK_SECRET)):
        (tmp_path / name).write_text(secret)
    places = {
        "slow": WebhookPlaces(urls=(silent.url,), secret_file=str(tmp_path / "slow")),
        "quick": WebhookPlaces(urls=(receiver.url,), secret_file=str(tmp_path / "quick")),
    }
    config = ServiceConfig(
        state_dir=tmp_path,
        redis=redis,
        jobs=JobsConfig(max_queued=1000),
        gateway=GatewayConfig(port=0, http_port=None, drain_s=1.5, api_keys_file=str(tmp_path / "keys.yaml")),
        webhooks=WebhooksConfig(tenants=places, timeout_s=600, internal_networks=("127.0.0.0/8",)),
    )
    gateway = Gateway(config)
    await gateway.start()
    target = f"127.0.0.1:{gateway.port}"
    async with (
        AsyncHeliosClient(target, Connection(api_key=keys["slow"][0])) as slow,
        AsyncHeliosClient(target, Connection(api_key=keys["quick"][0])) as quick,
    ):
        yield Tenants(slow, quick)
    await gateway.stop()


async def ended(client: AsyncHeliosClient, url: str) -> str:
    job = await client.submit("a lake", num_frames=33, webhook_url=url)
    return (await client.cancel(job.id)).id


async def test_calls_that_hang_are_their_tenants_own(tenants: Tenants, receiver: Receiver, silent: Silent) -> None:
    """None of them ends before the other tenant's are all taken."""
    for _ in range(40):
        await ended(tenants.slow, silent.url)
    await until(lambda: silent.calls == CALLS_PER_LANE)
    jobs = [await ended(tenants.quick, receiver.url) for _ in range(20)]
    await receiver.called(20)
    assert {each["data"]["id"] for each in receiver.events()} == set(jobs)
    assert silent.calls == CALLS_PER_LANE


async def test_a_webhook_says_whose_it_is_and_is_signed_by_that_tenants_secret(
    tenants: Tenants, receiver: Receiver
) -> None:
    await ended(tenants.quick, receiver.url)
    await receiver.called(1)
    ((_, headers, body),) = receiver.calls
    assert json.loads(body)["tenant"] == "quick"
    Webhook(QUICK_SECRET).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SLOW_SECRET).verify(body, headers)


async def test_another_tenants_place_is_not_to_be_called(tenants: Tenants, receiver: Receiver, silent: Silent) -> None:
    for client, others in ((tenants.slow, receiver.url), (tenants.quick, silent.url)):
        with pytest.raises(HeliosError, match="webhook_url") as caught:
            await client.submit("a lake", webhook_url=others)
        assert others not in caught.value.message.partition("allowed: ")[2]


async def test_webhooks_that_an_older_release_has_put_down_are_sent(
    client: AsyncHeliosClient, config: ServiceConfig, receiver: Receiver, worker: Worker
) -> None:
    """It marks a job with 1, and has one list."""
    job = await client.submit("a lake", num_frames=33, webhook_url=receiver.url)
    of = Keys(config.redis.namespace).of
    async with async_client(config.redis.url) as redis:
        await redis.hset(of("job", job.id), "webhook", "")
        ended_ms = round(1000 * ((await worker.store.cancel(job.id)).ended_s or 0))
        await redis.hset(of("job", job.id), "webhook", "1")
        await redis.zadd(of("webhooks"), {f"{job.id}:{ended_ms}": ended_ms})
        await receiver.called(1)
        assert receiver.events()[0]["data"]["id"] == job.id

        async def nothing_is_left() -> bool:
            return not await redis.exists(of("webhooks"), of("webhook_lanes"), of("webhook_tries"))

        await until(nothing_is_left)


def test_one_list_for_all_is_refused_where_there_are_tenants() -> None:
    webhooks = WebhooksConfig(urls=("https://x/",), secret_file="s")
    with pytest.raises(ValueError, match=r"webhooks\.urls must be empty with gateway\.api_keys_file"):
        ServiceConfig(webhooks=webhooks, gateway=GatewayConfig(api_keys_file="keys.yaml"))
    places = {name: {"urls": ["https://x/"], "secret_file": "s"} for name in ("a", "b")}
    with pytest.raises(ValueError, match="two have the same secret_file"):
        WebhooksConfig.model_validate({"tenants": places})
    with pytest.raises(ValueError, match="String should match pattern"):
        WebhooksConfig.model_validate({"tenants": {"a b": {}}})
