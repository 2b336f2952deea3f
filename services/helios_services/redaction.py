"""Keeps secrets out of text, and what users send out of records that are kept: logs, spans, error messages.

Secrets (passwords, API keys, tokens) are never written. Prompts, media and other values of requests are not written
unless the log level is debug; exceptions keep their types and places in the code, and lose their messages, which may
quote anything.
"""

import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from traceback import extract_tb
from typing import Any

REDACTED = "[redacted]"
MIN_SECRET_CHARS = 6
"""Shorter values are too common to be searched for."""
_known: set[str] = set()
_PATTERNS = (
    (re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/@'\"]*@", re.IGNORECASE), rf"\1{REDACTED}@"),  # user:password@ of a URL
    (re.compile(r"(bearer\s+)[^\s'\",)]+", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"whsec_[A-Za-z0-9+/=_-]+"), REDACTED),  # a webhook's secret
    (re.compile(r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"), REDACTED),  # a token for a browser
    (re.compile(r"\b([A-Za-z0-9_-]{1,64})\.[A-Za-z0-9_-]{43}\b"), rf"\1.{REDACTED}"),  # an API key: id, secret
)
_SECRET_NAMES = re.compile(r"(password|passwd|secret|token|authorization|api_?key|credential)s?$", re.IGNORECASE)
_CONTENT_NAMES = frozenset(
    (
        *("prompt", "prompts", "negative_prompt", "prompt_schedule", "prompt_updates"),
        *("params", "spec", "request", "labels", "image", "video", "data"),
    )
)
_FRAME = re.compile(r"  File \"[^\"\s]+\", line \d+, in \S+$")
_ERROR = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception)(?=:|$)")
_TELLING = frozenset(
    (
        *("OSError", "FileNotFoundError", "PermissionError", "IsADirectoryError", "NotADirectoryError"),
        *("ConnectionError", "ConnectionRefusedError", "ConnectionResetError", "BrokenPipeError", "TimeoutError"),
        *("MemoryError", "OutOfMemoryError", "AuthenticationError", "NoPermissionError", "BusyLoadingError"),
        *("ReadOnlyError", "SandboxError", "ConfigError", "CheckpointError", "ActorDiedError", "RayActorError"),
    )
)
"""Exceptions whose messages tell of the system, not of what users sent."""


def keep_secret(value: str) -> None:
    """Whatever is scrubbed from now on loses this value."""
    if len(value) >= MIN_SECRET_CHARS:
        _known.add(value)


def scrub(text: str) -> str:
    """The text without known secrets and without what looks like one."""
    for value in _known:
        text = text.replace(value, REDACTED)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def outline(error: BaseException) -> str:
    """An exception and those that led to it: types and places, and messages of _TELLING types only.

    An exception that brings a remote process's traceback as its message keeps the types and places in that.
    """
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        kind, message = type(current).__name__, str(current)
        telling = kind in _TELLING
        frames = [f'  File "{f.filename}", line {f.lineno}, in {f.name}' for f in extract_tb(current.__traceback__)]
        remote = [] if telling else [f"  remote:{line}" for line in map(_place, message.splitlines()) if line]
        parts.append("\n".join([*frames, *remote, scrub(f"{kind}: {message}") if telling else kind]))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\nthen:\n".join(reversed(parts))


def _place(line: str) -> str:
    """A line of a traceback if it is a place in the code or a type, without a message."""
    if _FRAME.match(line):
        return line
    match = _ERROR.match(line)
    return f" {match[0]}" if match else ""


def presentable(name: str, value: Any, *, debug: bool) -> Any:
    """A value of a log event, under its name, as it may be written."""
    if _SECRET_NAMES.search(name):
        return REDACTED
    if name in _CONTENT_NAMES and not debug:
        return REDACTED
    match value:
        case Enum():
            return presentable(name, value.value, debug=debug)
        case None | bool() | int() | float():
            return value
        case str() | Path():
            return scrub(str(value))
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case Mapping():
            return {str(key): presentable(str(key), entry, debug=debug) for key, entry in value.items()}
        case list() | tuple() | set() | frozenset():
            return [presentable(name, entry, debug=debug) for entry in value]
        case BaseException() if type(value).__name__ in _TELLING:
            return scrub(str(value))
        case _:  # a record or a message: whatever its repr may hold
            return scrub(repr(value)) if debug else f"<{type(value).__name__}>"
