"""The gRPC door: the server with the API, health and reflection."""

import asyncio

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from helios_services.config import ConfigError, GatewayConfig
from helios_services.gateway.calls.api import Api
from helios_services.gateway.grpc.handlers import SERVICE, service_handler
from helios_services.gateway.grpc.limits import server_options
from helios_services.gateway.grpc.open_calls import MOST_BYTES, OpenCalls
from helios_services.gateway.grpc.servicer import Servicer
from helios_services.gateway.grpc.tls import server_credentials
from helios_services.gateway.guard.guard import Guard

LIVENESS = "liveness"
"""Health service name that stays SERVING without Redis: the process is alive, restarting it would help nobody."""
NEVER_S = 3600.0
"""Where the server's own limit lies beyond the drain: `cut` ends it, not that."""
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class GrpcDoor:
    """port, health_port: where it listens, once it is bound (health_port: 0 for none)."""

    def __init__(self, config: GatewayConfig, api: Api, guard: Guard) -> None:
        self._config = config
        self.port = self.health_port = 0
        self._credentials = server_credentials(config)
        self._server = grpc.aio.server(interceptors=[OpenCalls()], options=server_options(config))
        self._server.add_generic_rpc_handlers((service_handler(Servicer(api), guard),))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if config.reflection:
            health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
            names = (SERVICE.full_name, health_name, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        small = dict(server_options(config)) | {"grpc.max_receive_message_length": MOST_BYTES}
        self._probed = grpc.aio.server(interceptors=[OpenCalls()], options=list(small.items()))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._probed)

    async def bind(self) -> None:
        """Takes its ports. Raises ConfigError."""
        self.port = self._bind(self._server, "port", self._credentials)
        if self._config.health_port is not None:
            self.health_port = self._bind(self._probed, "health_port", None)

    async def open(self) -> None:
        """Takes calls from now on."""
        await self._health.set(LIVENESS, SERVING)
        await self._server.start()
        await self._probed.start()

    async def serving(self, serving: bool) -> None:
        """What health says of the API."""
        for name in ("", SERVICE.full_name):
            await self._health.set(name, SERVING if serving else NOT_SERVING)

    async def close(self) -> "asyncio.Task[None]":
        """Health flips, and no call is taken from now on. The task ends with the last call."""
        await self._health.enter_graceful_shutdown()
        return asyncio.create_task(self._server.stop(NEVER_S))

    async def cut(self) -> None:
        """Ends the calls that are left."""
        await self._server.stop(None)
        await self._probed.stop(None)

    async def abandon(self) -> None:
        """Gives back ports that were bound and never opened."""
        await self.cut()

    def _bind(self, server: grpc.aio.Server, setting: str, credentials: grpc.ServerCredentials | None) -> int:
        port = getattr(self._config, setting)
        address = f"{self._config.host}:{port}"
        try:
            if credentials is None:
                return int(server.add_insecure_port(address))
            return int(server.add_secure_port(address, credentials))
        except RuntimeError:
            raise ConfigError(f"gateway.{setting}: {port}: {address} cannot be bound (in use?)") from None
