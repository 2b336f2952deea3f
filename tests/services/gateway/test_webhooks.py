"""Webhooks, received by a real HTTP server from a real gateway."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from helios_services.client import AsyncHeliosClient, HeliosError
from helios_services.config import ConfigError, GatewayConfig, JobsConfig, RedisConfig, ServiceConfig, WebhooksConfig
from helios_services.gateway.server import Gateway
from helios_services.jobs.connector import Connector
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import JobFailure, JobSpec
from services.gateway.conftest import BY_HAND, Worker
from support.redis_clients import async_client
from support.waiting import until

SECRETS = ("whsec_" + "b2xk" * 8, "whsec_" + "bmV3" * 8)


@dataclass
class Receiver:
    """What was received; `answers` are given in turn, then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    calls: list[tuple[str, dict[str, str], str]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        self.calls.append((request.path, dict(request.headers), await request.text()))
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
        urls=(receiver.url,), secret_file=str(secret_file), first_wait_s=0.05, max_tries=3, timeout_s=60
    )
    gateway = GatewayConfig(port=0, drain_s=1.5)
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
        webhooks = Keys(redis.namespace).of("webhooks")
        due_ms = await client.zscore(webhooks, first.event)
        seconds, _ = await client.time()
        assert due_ms is not None
        assert 500_000 < due_ms - 1000 * seconds <= 601_000
        await client.zadd(webhooks, {first.event: 1})  # the sender's time is over
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
