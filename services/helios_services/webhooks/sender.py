"""Sends webhooks: from the store's list, by any gateway, again with longer waits until a 2xx answer comes.

The format is that of Standard Webhooks (standardwebhooks.com).
"""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import structlog
from google.protobuf.json_format import MessageToDict
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as Outcomes
from standardwebhooks import Webhook
from yarl import URL

from helios_services.config import ConfigError, WebhooksConfig
from helios_services.config.places import permitted
from helios_services.jobs.errors import JobNotFound, StoreUnavailable
from helios_services.jobs.records import DueWebhook, Job
from helios_services.jobs.store import JobStore
from helios_services.messages import job_message
from helios_services.tasks import cancelled
from helios_services.webhooks.addresses import NotPublic, sockets

log = structlog.get_logger(__name__)
CALLS_PER_LANE = 2
"""In progress at a time, of one tenant to one place. There are as many lanes as tenants have places."""
IDLE_S = 1.0
PRIVATE = ("params", "prompt_updates")
"""Fields of a job's message that do not leave the service: they hold prompts."""


class WebhookSender:
    """Needs a running event loop once started. Raises ConfigError for a secret that cannot be used."""

    def __init__(self, config: WebhooksConfig, store: JobStore, registry: CollectorRegistry) -> None:
        self._config, self._store = config, store
        self._secrets = {
            tenant: read_secrets(places.secret_file)
            for tenant, places in {"": config.of(""), **config.tenants}.items()
            if places.urls
        }
        self._outcomes = Outcomes("helios_webhooks", "Webhook calls, by outcome.", ("outcome",), registry=registry)
        for outcome in ("delivered", "failed", "given_up"):
            self._outcomes.labels(outcome)
        self._calls: dict[asyncio.Task[None], str] = {}
        """Those in progress, and their lanes."""
        self._ended = asyncio.Event()
        self._pulling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to send, if there is where to."""
        if self._secrets:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._config.timeout_s),
                connector=aiohttp.TCPConnector(  # the lanes bound them
                    limit=0, socket_factory=sockets(self._config.internal_networks)
                ),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            self._pulling = asyncio.create_task(self._pull(), name="webhooks")

    async def close(self) -> None:
        """What is in progress is dropped, and sent again by another gateway."""
        if self._pulling is not None:
            await cancelled(self._pulling)
            await cancelled(*self._calls)
            await self._session.close()

    async def _pull(self) -> None:
        while True:
            self._ended.clear()
            busy = [lane for lane, calls in Counter(self._calls.values()).items() if calls >= CALLS_PER_LANE]
            with suppress(StoreUnavailable):  # the health check tells; the webhook's time comes again
                due = await self._store.due_webhook(uuid4().hex, lease_s=2 * self._config.timeout_s, busy=busy)
                if due is not None:
                    call = asyncio.create_task(self._call(due))
                    self._calls[call] = due.lane
                    call.add_done_callback(self._has_ended)
                    continue
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):
                    await self._ended.wait()

    def _has_ended(self, call: "asyncio.Task[None]") -> None:
        del self._calls[call]
        self._ended.set()

    async def _call(self, due: DueWebhook) -> None:
        try:
            await self._deliver(due)
        except StoreUnavailable:  # its time comes again
            pass
        except Exception:
            log.exception("webhook_not_sent")

    async def _deliver(self, due: DueWebhook) -> None:
        try:
            job = await self._store.get(due.job_id)
        except JobNotFound:
            await self._store.settle_webhook(due)
            return
        if job.ended_s is None or not due.event.endswith(f":{round(job.ended_s * 1000)}"):  # queued again meanwhile
            await self._store.settle_webhook(due)
            return
        problem = await self._post(due, job)
        told = {"job_id": due.job_id, "host": urlsplit(job.spec.webhook_url).hostname, "tries": due.tries}
        if problem is None:
            self._outcomes.labels("delivered").inc()
            await self._store.settle_webhook(due)
        elif due.tries >= self._config.max_tries:
            self._outcomes.labels("given_up").inc()
            log.error("webhook_given_up", problem=problem, **told)
            await self._store.settle_webhook(due)
        else:
            self._outcomes.labels("failed").inc()
            wait_s = min(self._config.first_wait_s * 2.0 ** min(due.tries - 1, 30), self._config.longest_wait_s)
            log.warning("webhook_failed", problem=problem, again_in_s=wait_s, **told)
            await self._store.settle_webhook(due, again_in_s=wait_s)

    async def _post(self, due: DueWebhook, job: Job) -> str | None:
        """What went wrong, if something did.

        Redirects are not followed: they lead where nobody has allowed. The URL goes as it was allowed, byte for byte.
        """
        tenant = job.spec.tenant
        places = self._config.of(tenant)
        if not permitted(job.spec.webhook_url, places.urls):
            return "the URL is not allowed (any more)"
        body = json.dumps(event(job), separators=(",", ":"))
        with suppress(ConfigError):  # a file that is being written; the secrets stay as they were
            self._secrets[tenant] = read_secrets(places.secret_file)
        headers = signed(due.event, body, self._secrets[tenant])
        try:
            async with self._session.post(
                URL(job.spec.webhook_url, encoded=True), data=body.encode(), headers=headers, allow_redirects=False
            ) as response:
                return None if 200 <= response.status < 300 else f"HTTP status {response.status}"
        except aiohttp.ClientConnectorError as error:
            refused = isinstance(error.os_error, NotPublic)
            return "the address is not public (webhooks.internal_networks)" if refused else type(error).__name__
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return type(error).__name__


def event(job: Job) -> dict[str, Any]:
    """What the call says: how the job ended, whose it is, and the job without its prompts."""
    assert job.ended_s is not None
    data = MessageToDict(job_message(job), preserving_proto_field_name=True)
    ended = datetime.fromtimestamp(job.ended_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "type": f"job.{job.state.value}",
        "timestamp": ended,
        "tenant": job.spec.tenant,
        "data": {name: value for name, value in data.items() if name not in PRIVATE},
    }


def signed(message_id: str, body: str, secrets: list[str]) -> Mapping[str, str]:
    """The call's headers: a signature by each secret, so that a receiver may know either while they change."""
    now = datetime.now(UTC)
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, now, body) for secret in secrets),
    }


def read_secrets(path: str) -> list[str]:
    """Secrets from a file, one a line. Raises ConfigError, which does not tell them."""
    try:
        lines = [line.strip() for line in Path(path).read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"webhooks.secret_file: {path!r}: cannot be read ({type(error).__name__})") from None
    secrets = [line for line in lines if line]
    try:
        for secret in secrets:
            Webhook(secret)
    except Exception:
        raise ConfigError(f"webhooks.secret_file: {path!r}: a secret is whsec_ and base64") from None
    if not secrets:
        raise ConfigError(f"webhooks.secret_file: {path!r}: holds no secret")
    return secrets
