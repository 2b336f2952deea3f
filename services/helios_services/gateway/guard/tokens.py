"""Short-lived tokens for browsers: what an API key hands on of what it may, signed (JWT, HS256, by PyJWT).

The secrets that sign are those of a file, one a line. The first signs, all are good: a new one goes to the top, the old
one goes when its last token has expired. A secret that is taken out ends its tokens at once; so does the key that made
them.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import jwt
import structlog

from helios_services.config import ConfigError
from helios_services.gateway.guard.caller import Caller, Scope, Terms
from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.redaction import keep_secret

log = structlog.get_logger(__name__)
ALGORITHM, AUDIENCE = "HS256", "helios"
CLAIMS = ("aud", "exp", "iat", "sub")
MIN_SECRET_CHARS = 32
MAX_TOKEN_CHARS = 4096
CLOCKS_S = 5
"""What the clocks of two gateways may differ by."""
RELOAD_S = 1.0
"""How often, at most, the file is looked at for changes."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """What a token says. key_id: of the API key that it was made with."""

    key_id: str
    scopes: frozenset[Scope]
    terms: Terms


class Tokens:
    """Signs and reads tokens. Raises ConfigError for a file of secrets that is no good to begin with."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._secrets = _read(self._path)
        self._seen, self._looked_s = self._path.stat().st_mtime_ns, time.monotonic()

    def sign(self, caller: Caller, scopes: frozenset[Scope], terms: Terms, expires_s: float) -> str:
        """A token of this caller's key. expires_s: Unix time."""
        self._reload()
        claims = {
            "aud": AUDIENCE,
            "sub": caller.key_id,
            "iat": int(time.time()),
            "exp": int(expires_s),
            "scopes": sorted(scopes),
            "models": sorted(terms.models),
            "job": terms.job_id,
            "starts": terms.starts,
        }
        return jwt.encode(claims, self._secrets[0], ALGORITHM)

    def read(self, text: str) -> Token:
        """Raises Refusal (UNAUTHENTICATED)."""
        self._reload()
        for secret in self._secrets if len(text) <= MAX_TOKEN_CHARS else ():
            try:
                claims = jwt.decode(
                    text, secret, [ALGORITHM], audience=AUDIENCE, leeway=CLOCKS_S, options={"require": list(CLAIMS)}
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError:
                raise Refusal(Code.UNAUTHENTICATED, "the token has expired", reason="TOKEN_EXPIRED") from None
            except jwt.InvalidTokenError:
                break
            terms = Terms(models=frozenset(claims["models"]), job_id=claims["job"], starts=claims["starts"])
            return Token(key_id=claims["sub"], scopes=frozenset(map(Scope, claims["scopes"])), terms=terms)
        raise Refusal(Code.UNAUTHENTICATED, "the token is not one of this service, or has been revoked")

    def _reload(self) -> None:
        if time.monotonic() - self._looked_s < RELOAD_S:
            return
        self._looked_s = time.monotonic()
        try:
            seen = self._path.stat().st_mtime_ns
            if seen != self._seen:
                self._secrets, self._seen = _read(self._path), seen
        except (ConfigError, OSError) as error:
            log.error("token_secrets_not_read", error=str(error))


def is_token(credential: str) -> bool:
    """Whether it has a token's three parts; an API key has two."""
    return credential.count(".") == 2


def _read(path: Path) -> list[str]:
    try:
        secrets = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"gateway.token_secrets_file: {path}: cannot be read ({type(error).__name__})") from None
    if not secrets or min(map(len, secrets)) < MIN_SECRET_CHARS:
        raise ConfigError(
            f"gateway.token_secrets_file: {path}: secrets must have {MIN_SECRET_CHARS} characters or more, one a line"
        )
    for secret in secrets:
        keep_secret(secret)
    return secrets
