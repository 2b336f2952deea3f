"""API keys, from a file that can change while the gateway runs.

A key is `<id>.<secret>`, the secret 256 random bits. The file holds the secret's SHA-256 only: with so many random
bits, a slow hash would add nothing. Without a key file everybody may do everything, as one nameless tenant.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from helios_services.config import ConfigError
from helios_services.gateway.guard.caller import SCOPES, Caller, Scope
from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.gateway.guard.tokens import Token, Tokens, is_token
from helios_services.jobs.records import Account

log = structlog.get_logger(__name__)
HEADER, SCHEME = "authorization", "Bearer "
Headers = Iterable[tuple[str, str | bytes]]
"""A call's headers; names are in lower case."""
RELOAD_S = 1.0
"""How often, at most, the file is looked at for changes."""


class Quotas(BaseModel):
    """Limits of one account, over all gateways; unset: none of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    submits_per_minute: float | None = Field(None, gt=0, le=1_000_000)
    """Submissions; a minute's worth may come at once."""
    max_queued: int | None = Field(None, gt=0)
    max_running: int | None = Field(None, gt=0)
    video_minutes_per_day: float | None = Field(None, gt=0)
    """Charges of all chunks that start on a UTC day, in minutes of default video."""
    max_uploads: int | None = Field(None, gt=0)
    """Uploads that are kept, or arriving, at a time; unset: `media.max_files_per_account`."""
    max_upload_bytes: int | None = Field(None, gt=0)
    """Their bytes; unset: `media.max_bytes_per_account`."""


class KeyEntry(BaseModel):
    """A key in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    tenant: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    scopes: frozenset[Scope] = frozenset({Scope.SUBMIT, Scope.READ, Scope.CANCEL})
    account: str = Field("", pattern=r"^[A-Za-z0-9_-]{0,64}$")
    """Whom its jobs are counted for; unset: the key's id. A key that replaces another names the other's account."""
    weight: float = Field(1.0, ge=0.01, le=100)
    """Share of the account in the chunks, when several want them."""
    quotas: Quotas = Quotas()

    def caller(self) -> Caller:
        """Whom a call with this key is made for."""
        account = Account(id=self.account or self.id, weight=self.weight, **self.quotas.model_dump())
        return Caller(key_id=self.id, tenant=self.tenant, scopes=self.scopes, account=account)


class KeyFile(BaseModel):
    """The file: `keys`, a list of entries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[KeyEntry, ...]


class KeyRing:
    """The keys of a file, read again when it changes; a file that cannot be read leaves the keys as they were.

    Raises ConfigError if the file is no good to begin with. An empty path means no keys: everybody may call.
    tokens: reads those that were made with a key, which end with it.
    """

    def __init__(self, path: str, tokens: Tokens | None = None) -> None:
        self._path, self._tokens = Path(path) if path else None, tokens
        self._keys: dict[str, KeyEntry] = {}
        self._seen: tuple[int, int] | None = None
        self._looked_s = 0.0
        if self._path is not None:
            self._keys = read_keys(self._path)
            self._seen = _version(self._path)

    def authenticate(self, method: str, headers: Headers) -> Caller:
        """The caller of a call, by its headers alone.

        Raises Refusal: UNAUTHENTICATED, or PERMISSION_DENIED for a scope that is missing.
        """
        if self._path is None:
            return Caller()
        self._reload()
        caller = self._caller(headers)
        if caller is None:
            raise Refusal(Code.UNAUTHENTICATED, f"a valid API key is needed ({HEADER}: {SCHEME}KEY)")
        missing = SCOPES[method] - caller.scopes
        if missing and not caller.admin:
            names = ", ".join(sorted(missing))
            if caller.terms is not None:
                raise Refusal(Code.PERMISSION_DENIED, f"{method}: this token lacks the scope {names}")
            raise Refusal(Code.PERMISSION_DENIED, f"{method}: this key lacks the scope {names}")
        return caller

    def _caller(self, headers: Headers) -> Caller | None:
        given = [value for name, value in headers if name == HEADER]
        # of two, a proxy in front may have looked at the other
        if len(given) != 1 or not isinstance(given[0], str) or not given[0].startswith(SCHEME):
            return None
        credential = given[0].removeprefix(SCHEME).strip()
        if self._tokens is not None and is_token(credential):
            return self._bearer(self._tokens.read(credential))
        entry = self._entry(credential)
        return entry.caller() if entry is not None else None

    def _bearer(self, token: Token) -> Caller:
        """What the token's key may by now is the most that the token may."""
        entry = self._keys.get(token.key_id)
        if entry is None:
            raise Refusal(Code.UNAUTHENTICATED, "the API key that this token was made with is no longer good")
        scopes = token.scopes if Scope.ADMIN in entry.scopes else token.scopes & entry.scopes
        return replace(entry.caller(), scopes=scopes, terms=token.terms)

    def _entry(self, key: str) -> KeyEntry | None:
        key_id, _, secret = key.partition(".")
        entry = self._keys.get(key_id)
        expected = entry.sha256 if entry is not None else "0" * 64
        right = hmac.compare_digest(hashlib.sha256(secret.encode()).hexdigest(), expected)
        return entry if right else None

    def _reload(self) -> None:
        assert self._path is not None
        if time.monotonic() - self._looked_s < RELOAD_S:
            return
        self._looked_s = time.monotonic()
        try:
            version = _version(self._path)
            if version != self._seen:
                self._keys, self._seen = read_keys(self._path), version
                log.info("api_keys_read", keys=len(self._keys))
        except (ConfigError, OSError) as error:
            log.error("api_keys_not_read", error=str(error))


def new_key(key_id: str, tenant: str, scopes: frozenset[Scope], **terms: Any) -> tuple[str, KeyEntry]:
    """A new key, which is told once, and its entry for the file. terms: account, weight, quotas."""
    secret = secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return f"{key_id}.{secret}", KeyEntry(id=key_id, sha256=digest, tenant=tenant, scopes=scopes, **terms)


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino


def read_keys(path: Path) -> dict[str, KeyEntry]:
    """The keys of a file, by id. Raises ConfigError."""
    try:
        content = KeyFile.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise ConfigError(f"gateway.api_keys_file: {path}: {error.strerror}") from None
    except ValidationError as error:  # without the values: they may hold secrets in the wrong place
        places = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ConfigError(f"gateway.api_keys_file: {path}: {places}") from None
    except (yaml.YAMLError, ValueError):  # also bytes that are no text, and values that YAML cannot read
        raise ConfigError(f"gateway.api_keys_file: {path}: is no YAML") from None
    keys = {entry.id: entry for entry in content.keys}
    if len(keys) < len(content.keys):
        raise ConfigError(f"gateway.api_keys_file: {path}: two keys have the same id")
    return keys
