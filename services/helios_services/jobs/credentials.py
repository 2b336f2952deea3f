"""How every client of Redis connects: who it is, its password from a file, and TLS."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError

from helios_services.config import ConfigError, RedisConfig
from helios_services.redaction import keep_secret

_TLS_FILES = {
    "tls_ca_file": "ssl_ca_certs",
    "tls_certificate_file": "ssl_certfile",
    "tls_key_file": "ssl_keyfile",
}


class FileCredentials(CredentialProvider):
    """Reads the password anew for each connection, so that a file that changes is a rotation without a restart."""

    def __init__(self, username: str, file: Path) -> None:
        self._username, self._file = username, file

    def get_credentials(self) -> tuple[str, str]:
        """Raises redis' ConnectionError if the file cannot be read just now: the call is repeated, or UNAVAILABLE."""
        try:
            password = self._file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is no text"
            raise RedisConnectionError(f"redis.password_file: {self._file}: {reason}") from None
        keep_secret(password)
        return self._username or "default", password

    async def get_credentials_async(self) -> tuple[str, str]:
        """The same: the file is small."""
        return self.get_credentials()


def connection_options(redis: RedisConfig) -> dict[str, Any]:
    """What redis-py's `from_url(redis.url, ...)` is given beside timeouts. Raises ConfigError for a file or a
    combination that cannot work.
    """
    url = urlsplit(redis.url)
    keep_secret(url.password or "")
    options: dict[str, Any] = {}
    if redis.password_file:
        if url.password or url.username:
            raise ConfigError("redis.password_file: the URL names a user or a password too; allowed: one of both")
        credentials = FileCredentials(redis.username, Path(redis.password_file))
        try:
            credentials.get_credentials()
        except RedisConnectionError as error:
            raise ConfigError(str(error)) from None
        options["credential_provider"] = credentials
    elif redis.username:
        raise ConfigError("redis.username: is given without redis.password_file")
    for name, option in _TLS_FILES.items():
        file = getattr(redis, name)
        if not file:
            continue
        if url.scheme != "rediss":
            raise ConfigError(f"redis.{name}: is given, but redis.url is not rediss://")
        if not Path(file).is_file():
            raise ConfigError(f"redis.{name}: {file}: is not a file")
        options[option] = file
    if bool(redis.tls_certificate_file) != bool(redis.tls_key_file):
        raise ConfigError("redis.tls_certificate_file, redis.tls_key_file: must be given together")
    return options
