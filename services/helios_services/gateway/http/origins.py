"""Which pages may call: browsers carry a page's calls to wherever it points them, also to this machine."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from helios_services.config import GatewayConfig
from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.gateway.http.envelope import refused

READING = ("GET", "HEAD", "OPTIONS")
"""What other origins cannot read of their answers, unless CORS lets them."""


class Origins:
    """Ends what a page of another origin begins: requests that change something, and sockets, which CORS leaves alone.

    Without keys on loopback, the name that was called must be one of this machine's own as well: any name can be made
    to lead here (DNS rebinding), and its pages would be of the same origin.
    """

    def __init__(self, app: ASGIApp, config: GatewayConfig) -> None:
        self._app, self._allowed = app, frozenset(config.cors_origins)
        self._own_names_only = not config.api_keys_file and not config.tls_client_ca_file and _loopback(config.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server."""
        if scope["type"] in ("http", "websocket") and (refusal := self._refusal(scope)):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await refused(refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._own_names_only and not _loopback(_name(host)):
            allowed = "a name of this machine's loopback, where no API keys are asked for"
            return Refusal(Code.PERMISSION_DENIED, f"Host: {host[:128]!r} is not allowed; allowed: {allowed}")
        changes = scope["type"] == "websocket" or scope["method"] not in READING
        if changes and origin is not None and _place(origin) != host and origin not in self._allowed:
            allowed = "this service's own pages, and gateway.cors_origins"
            return Refusal(Code.PERMISSION_DENIED, f"Origin: {origin[:128]!r} is not allowed; allowed: {allowed}")
        return None


def _name(host: str) -> str:
    """The name in a Host header; empty for what is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _place(origin: str) -> str | None:
    """Name and port of an origin; None for what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return name.endswith(".localhost")
