"""The HTTP door: the server with the API, health and the player's pages."""

import asyncio
import logging
import socket

from uvicorn import Config, Server

from helios_services.config import ConfigError
from helios_services.gateway.http.admission import House
from helios_services.gateway.http.app import application
from helios_services.gateway.http.connections import (
    IDLE_S,
    MAX_HEAD_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_QUEUED,
    Connection,
    listening,
)
from helios_services.gateway.http.tls import server_context
from helios_services.tasks import cancelled

BACKLOG = 2048


class HttpDoor:
    """port: where it listens, once it is bound."""

    def __init__(self, house: House) -> None:
        self._config = house.config.gateway
        self.port = 0
        self.app = application(house)
        options = Config(
            self.app,
            http=Connection,
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_max_queue=MAX_QUEUED,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=IDLE_S,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # calls that fail are logged by the guard
        options.load()
        options.ssl = server_context(self._config)
        self._server = Server(options)
        self._socket: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None
        self._cut = asyncio.Event()

    async def bind(self) -> None:
        """Takes its port. Raises ConfigError."""
        host, port = self._config.host, self._config.http_port
        assert port is not None
        try:
            self._socket = listening(host, port)
        except OSError:
            raise ConfigError(f"gateway.http_port: {port}: {host}:{port} cannot be bound (in use?)") from None
        self.port = int(self._socket.getsockname()[1])

    async def open(self) -> None:
        """Takes requests from now on."""
        assert self._socket is not None
        self._server.lifespan = self._server.config.lifespan_class(self._server.config)
        await self._server.startup([self._socket])
        self._serving = asyncio.create_task(self._serve(self._socket), name="http")

    async def serving(self, serving: bool) -> None:
        """What /readyz says."""
        self.app.state.health.ready = serving

    async def close(self) -> "asyncio.Task[None]":
        """Health flips, and no request is taken from now on. The task ends with the last answer."""
        self.app.state.health.ready = False
        self._server.should_exit = True
        assert self._serving is not None
        return self._serving

    async def cut(self) -> None:
        """Ends the answers that are left."""
        await cancelled(*self._server.server_state.tasks)
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()  # closing would wait for a reader that has stalled
        self._cut.set()

    async def _serve(self, sock: socket.socket) -> None:
        """The server's own sequence, without its handling of signals: they are the process's business."""
        await self._server.main_loop()
        ending = asyncio.create_task(self._server.shutdown([sock]))
        cut = asyncio.create_task(self._cut.wait())
        await asyncio.wait({ending, cut}, return_when=asyncio.FIRST_COMPLETED)
        await cancelled(ending, cut)

    async def abandon(self) -> None:
        """Gives back a port that was bound and never opened."""
        if self._socket is not None:
            self._socket.close()
