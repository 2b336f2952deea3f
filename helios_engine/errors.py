"""Errors that users of the engine see."""

from typing import Any

MAX_SHOWN = 80


def shorten(value: Any) -> str:
    """`repr(value)` cut to a length fit for an error message."""
    text = repr(value) if not isinstance(value, str) else repr(value[: MAX_SHOWN + 1])
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


class InvalidField(ValueError):
    """A field of a request has a value that is not allowed.

    Attributes: `field` (name), `value` (as given), `allowed` (what would be accepted, in words).
    """

    def __init__(self, field: str, value: Any, allowed: str) -> None:
        super().__init__(f"{field}: {shorten(value)} is not allowed; allowed: {allowed}")
        self.field, self.value, self.allowed = field, value, allowed

    def __reduce__(self) -> tuple[type["InvalidField"], tuple[str, Any, str]]:
        return type(self), (self.field, self.value, self.allowed)


class DoesNotFit(ValueError):
    """A machine cannot hold the model as it is asked for; the message says what would."""


class CheckpointError(ValueError):
    """A checkpoint folder is not what it should be; the message names the file and the tensor or key."""
