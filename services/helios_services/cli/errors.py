"""Turns expected errors into one line for the user."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from helios_engine.errors import CheckpointError, InvalidField
from helios_services.client.errors import HeliosError
from helios_services.config import ConfigError
from helios_services.jobs.errors import StoreUnavailable
from helios_services.media.errors import MediaError, SandboxError


class UserError(Exception):
    """An error of the environment or the call; its message is all the user needs."""


@contextmanager
def user_errors() -> Iterator[None]:
    """Prints expected errors on standard error and exits with status 1."""
    try:
        yield
    except (UserError, ConfigError, CheckpointError, InvalidField, HeliosError, MediaError, SandboxError) as error:
        _exit(str(error))
    except StoreUnavailable as error:
        _exit(f"Redis: {error}")
    except BrokenPipeError:
        sys.exit(1)


def _exit(message: str) -> None:
    print(f"helios: {message}", file=sys.stderr)
    sys.exit(1)
