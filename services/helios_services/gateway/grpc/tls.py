"""The gateway's certificate, and the clients' where they are asked for one; read again at each handshake."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import grpc
import structlog

from helios_services.config import ConfigError, GatewayConfig

log = structlog.get_logger(__name__)


def server_credentials(config: GatewayConfig) -> grpc.ServerCredentials | None:
    """None without TLS. Certificates can be exchanged while the gateway runs. Raises ConfigError."""
    if not config.tls_certificate_file and not config.tls_key_file and not config.tls_client_ca_file:
        return None
    if not (config.tls_certificate_file and config.tls_key_file):
        raise ConfigError("gateway.tls_certificate_file, gateway.tls_key_file: must be given together")
    initial = _read(config)

    def current() -> grpc.ServerCertificateConfiguration | None:
        try:
            return _read(config)
        except ConfigError as error:
            log.error("certificate_not_read", error=str(error))
            return None  # the one in use stays

    fetch = cast(Callable[[], grpc.ServerCertificateConfiguration], current)  # the stubs forget that None is allowed
    credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
        initial, fetch, require_client_authentication=bool(config.tls_client_ca_file)
    )
    return credentials


def _read(config: GatewayConfig) -> grpc.ServerCertificateConfiguration:
    def content(name: str) -> bytes:
        path = getattr(config, name)
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"gateway.{name}: {path}: {error.strerror}") from None

    pair = (content("tls_key_file"), content("tls_certificate_file"))
    authorities = content("tls_client_ca_file") if config.tls_client_ca_file else None
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=authorities)
