"""Turns expected errors into one line for the user."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from helios_engine.errors import CheckpointError, InvalidField
from helios_engine.extras import MissingExtra
from helios_services.errors import ExpectedError


class UserError(ExpectedError):
    """An error of the environment or the call."""


@contextmanager
def user_errors() -> Iterator[None]:
    """Prints expected errors on standard error and exits with status 1."""
    try:
        yield
    except (ExpectedError, MissingExtra, CheckpointError, InvalidField) as error:
        _exit(str(error))
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        redis = sys.modules.get("redis.exceptions")  # absent where only the client is installed
        if redis is None or not isinstance(error, redis.RedisError):
            raise
        _exit(f"Redis: {error}")


def _exit(message: str) -> None:
    print(f"helios: {message}", file=sys.stderr)
    sys.exit(1)
