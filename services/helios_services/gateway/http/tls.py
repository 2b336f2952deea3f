"""TLS of the HTTP door: the gateway's certificate, read again at a handshake when its files have changed."""

import ssl
from pathlib import Path

import structlog

from helios_services.config import ConfigError, GatewayConfig

log = structlog.get_logger(__name__)
FILES = ("tls_certificate_file", "tls_key_file", "tls_client_ca_file")


def server_context(config: GatewayConfig) -> ssl.SSLContext | None:
    """None without TLS. Raises ConfigError."""
    if not any(getattr(config, name) for name in FILES):
        return None
    if not (config.tls_certificate_file and config.tls_key_file):
        raise ConfigError("gateway.tls_certificate_file, gateway.tls_key_file: must be given together")
    return _Certificates(config).context()


class _Certificates:
    """The context in use, and the files that it was made of."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._seen = self._versions()
        self._current = self._read()

    def context(self) -> ssl.SSLContext:
        """For the server: each of its handshakes goes on with the certificate of that moment."""
        outer = self._read()
        outer.sni_callback = self._renewed
        return outer

    def _renewed(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        try:
            versions = self._versions()
            if versions != self._seen:
                self._current, self._seen = self._read(), versions
        except ConfigError as error:
            log.error("certificate_not_read", error=str(error))  # the one in use stays
        connection.context = self._current

    def _versions(self) -> list[tuple[int, int]]:
        versions = []
        for name in FILES:
            path = getattr(self._config, name)
            if not path:
                continue
            try:
                status = Path(path).stat()
            except OSError as error:
                raise ConfigError(f"gateway.{name}: {path}: {error.strerror}") from None
            versions.append((status.st_mtime_ns, status.st_ino))
        return versions

    def _read(self) -> ssl.SSLContext:
        config = self._config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(config.tls_certificate_file, config.tls_key_file)
            if config.tls_client_ca_file:
                context.load_verify_locations(config.tls_client_ca_file)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or "cannot be read"
            raise ConfigError(f"gateway.tls_certificate_file: {config.tls_certificate_file}: {reason}") from None
        return context
