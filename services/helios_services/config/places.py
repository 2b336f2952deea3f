"""Where webhooks may go: addresses that the operator has named, so that nobody makes the gateway call others."""

import re
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

MAX_URL = 2048
ESCAPES = re.compile("%(2e|2f|25|3b|5c)", re.IGNORECASE)
"""Escapes that a server may take for parts of the path when it decodes them: . / % ; and backslash."""
BROKEN_ESCAPE = re.compile("%(?![0-9a-f]{2})", re.IGNORECASE)
"""Libraries mend it, each in its own way: what is called would not be what was looked at."""


def permitted(url: str, allowed: Iterable[str]) -> bool:
    """Whether the URL is at one of the allowed places or below it: same scheme, host and port, path by whole parts."""
    try:
        target = _split(url)
        return any(_below(target, _split(place)) for place in allowed)
    except ValueError:
        return False


def origin(url: str) -> str:
    """Scheme, host and port of a URL that is permitted somewhere. Raises ValueError for one that can be nowhere."""
    return "{}://{}:{}".format(*_origin(_split(url)))


def check_place(url: str) -> None:
    """Raises ValueError unless the URL can be an allowed place."""
    place = _split(url)
    if place.query:
        raise ValueError("must have no query")


def _split(url: str) -> SplitResult:
    parts = urlsplit(url)
    plain = len(url) <= MAX_URL and url.isascii() and url.isprintable() and not set(url) & set(' "<>\\^`{|}')
    if (
        not plain
        or parts.scheme not in ("http", "https")
        or not parts.hostname
        or set("@%") & set(parts.netloc)
        or BROKEN_ESCAPE.search(url)
        or parts.fragment
    ):
        raise ValueError("must be an http or https URL without user, fragment, blanks and broken escapes")
    if {".", ".."} & set(parts.path.split("/")) or ";" in parts.path or ESCAPES.search(parts.path):
        raise ValueError("must have a plain path")
    _ = parts.port  # raises for one that is no number
    return parts


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]


def _below(target: SplitResult, place: SplitResult) -> bool:
    path = place.path.rstrip("/")
    return _origin(target) == _origin(place) and (target.path == path or target.path.startswith(path + "/"))
