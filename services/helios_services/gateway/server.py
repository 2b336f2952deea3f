"""A gateway: the store, the calls, the guard, the doors, and an orderly end."""

import asyncio

import structlog

from helios_services.config import ServiceConfig
from helios_services.gateway.calls.api import Api
from helios_services.gateway.grpc.door import GrpcDoor
from helios_services.gateway.guard.drain import Drain
from helios_services.gateway.guard.guard import Guard
from helios_services.gateway.guard.in_progress import InProgress
from helios_services.gateway.guard.keys import KeyRing
from helios_services.gateway.guard.local_users import LocalUsers
from helios_services.gateway.guard.metrics import CallMetrics
from helios_services.gateway.guard.tokens import Tokens
from helios_services.gateway.http.admission import House
from helios_services.gateway.http.door import HttpDoor
from helios_services.gateway.metrics import GatewayMetrics
from helios_services.jobs.connector import Connector
from helios_services.jobs.errors import StoreUnavailable
from helios_services.jobs.patched import warn_of_old_server
from helios_services.tasks import cancelled
from helios_services.webhooks.sender import WebhookSender

log = structlog.get_logger(__name__)
CHECK_PERIOD_S = 2.0
CONNECTING_S = 0.5
DRAIN_MARGIN_S = 5.0
"""How long of the drain streams may take to end once they are told: each looks into Redis once more."""


class Gateway:
    """The gateway of one process. `config.redis.url` must be set."""

    def __init__(self, config: ServiceConfig) -> None:
        self._config = config
        self.metrics = GatewayMetrics(config.jobs.max_queued)
        self._drain = Drain()
        self._http: HttpDoor | None = None
        self._doors: list[GrpcDoor | HttpDoor] = []
        self._background: list[asyncio.Task[None]] = []

    @property
    def port(self) -> int:
        """The port of the gRPC API."""
        return self._grpc.port

    @property
    def http_port(self) -> int:
        """The port of the HTTP API; 0 for none."""
        return self._http.port if self._http is not None else 0

    @property
    def health_port(self) -> int:
        """The port of the probes; 0 for none."""
        return self._grpc.health_port

    async def start(self) -> None:
        """Binds and serves. Raises ConfigError for an address, keys or certificates that cannot be had."""
        config, options = self._config, self._config.gateway
        tokens = Tokens(options.token_secrets_file) if options.token_secrets_file else None
        keys = KeyRing(options.api_keys_file, tokens)
        connector = Connector(config.redis, config.jobs)
        self._store, self._notifier = connector.store(), connector.notifier()
        self._own_store = connector.store()  # so that health and webhooks wait for no caller's connection
        try:
            self._webhooks = WebhookSender(config.webhooks, self._own_store, self.metrics.registry)
            self._api = api = Api(config, self._store, self._notifier, self.metrics, self._drain, tokens)
            in_progress = InProgress(options.max_concurrent_rpcs, options.max_concurrent_rpcs_per_key)

            def guard(door: str, local_users: LocalUsers) -> Guard:
                return Guard(keys, in_progress, CallMetrics(self.metrics.registry, door), local_users)

            at_grpc, at_http = LocalUsers(options), LocalUsers(options)
            self._grpc = GrpcDoor(options, api, guard("grpc", at_grpc))
            self._doors.append(self._grpc)
            if options.http_port is not None:
                house = House(api=api, guard=guard("http", at_http), config=config, drain=self._drain)
                self._http = HttpDoor(house)
                self._doors.append(self._http)
            for door in self._doors:
                await door.bind()
            at_grpc.port, at_http.port = self.port, self.http_port
        except BaseException:
            for door in self._doors:
                await door.abandon()
            await self._close_stores()
            raise
        await self._notifier.start()
        await self._look_at_redis()
        for door in self._doors:
            await door.open()
        await self._webhooks.start()
        self._background = [
            asyncio.create_task(self._watch_redis(), name="redis-watch"),
            asyncio.create_task(warn_of_old_server(self._config.redis), name="redis-version"),
        ]
        log.info("gateway_serving", host=options.host, port=self.port, http_port=self.http_port)

    async def stop(self) -> None:
        """Health flips first; calls get `drain_s` to finish, streams a little less: they end with a resume point."""
        drain_s = self._config.gateway.drain_s
        margin_s = min(DRAIN_MARGIN_S, drain_s)
        # connecting, as it may be right after the start, it would leave its socket behind
        await asyncio.wait(self._background[1:], timeout=CONNECTING_S)
        await cancelled(*self._background)
        ended = [await door.close() for door in self._doors]
        await asyncio.wait(ended, timeout=drain_s - margin_s)
        self._drain.begin()
        self._notifier.wake_all()  # streams that wait look again
        await asyncio.wait(ended, timeout=margin_s)  # from now, however late this process got to it
        for door in self._doors:
            await door.cut()
        await asyncio.gather(*ended)
        await self._api.close()
        await self._webhooks.close()
        await self._notifier.close()
        await self._close_stores()
        log.info("gateway_stopped")

    async def _close_stores(self) -> None:
        await self._store.close()
        await self._own_store.close()

    async def _watch_redis(self) -> None:
        while True:
            await asyncio.sleep(CHECK_PERIOD_S)
            await self._look_at_redis()

    async def _look_at_redis(self) -> None:
        """Sets health by whether the store answers, and the metrics that the store holds."""
        serving = False
        try:
            await self._own_store.sweep()  # deadlines are kept while no worker runs
            depths, dead = await self._own_store.depths(self._config.model.name), await self._own_store.dead_letters()
            self.metrics.store(depths, await self._own_store.ended(), dead)
            serving = True
        except StoreUnavailable:
            self.metrics.store_lost()
        for door in self._doors:
            await door.serving(serving)
