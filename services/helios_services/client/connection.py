"""How a client connects: plain or TLS, with an API key or without."""

import re
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc

from helios.v1.video_generation_pb2_grpc import VideoGenerationStub

HOST_PORT = re.compile(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<host>[^\[\]:/@]+))(?::\d+)?")
CHANNEL_OPTIONS = [("grpc.keepalive_time_ms", 30_000), ("grpc.max_receive_message_length", 8 * 1024 * 1024)]


class _Stub:
    """Adds the key to each call."""

    def __init__(self, stub: Any, api_key: str) -> None:
        self._stub = stub
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()

    def __getattr__(self, method: str) -> Any:
        return partial(getattr(self._stub, method), metadata=self._metadata)


@dataclass(frozen=True, kw_only=True)
class Connection:
    """api_key: sent with each call; only over TLS, unless the gateway is on this machine. tls: encrypt, trusting the
    system's authorities, or those in `ca_file`. certificate_file, key_file: the client's own, for mutual TLS.
    """

    api_key: str = ""
    tls: bool = False
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    def channel(self, target: str, grpc_: Any = grpc) -> Any:
        """A blocking channel; with `grpc_` = grpc.aio an asyncio one. Raises ValueError for a key in the clear."""
        self._check(target)
        # a proxy that the environment names would look for this machine's ports on its own
        options = [*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", int(not is_loopback(target)))]
        credentials = self._credentials()
        if credentials is None:
            return grpc_.insecure_channel(target, options=options)
        return grpc_.secure_channel(target, credentials, options=options)

    def stub(self, channel: Any) -> Any:
        """The service's stub, whose calls carry the key."""
        return _Stub(VideoGenerationStub(channel), self.api_key)

    def _credentials(self) -> grpc.ChannelCredentials | None:
        if not self.tls and self.ca_file is None:
            return None
        authorities, key, certificate = (
            None if file is None else file.read_bytes() for file in (self.ca_file, self.key_file, self.certificate_file)
        )
        credentials: grpc.ChannelCredentials = grpc.ssl_channel_credentials(authorities, key, certificate)
        return credentials

    def _check(self, target: str) -> None:
        if self.api_key and not (self.tls or self.ca_file or is_loopback(target)):
            raise ValueError(f"api_key: is not sent to {target!r} in the clear; use TLS")


def is_loopback(target: str) -> bool:
    """Whether HOST:PORT is this machine: localhost, or an address that says so. Other names can lead anywhere."""
    match = HOST_PORT.fullmatch(target)
    if match is None:
        return False
    host = match["bracketed"] or match["host"]
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
