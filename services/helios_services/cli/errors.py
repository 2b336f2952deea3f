"""Turns expected errors into one line for the user."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from helios_engine.errors import CheckpointError, DoesNotFit, InvalidField
from helios_engine.extras import MissingExtra
from helios_services.errors import ExpectedError
from helios_services.jobs.errors import StoreUnavailable


class UserError(ExpectedError):
    """An error of the environment or the call."""


@contextmanager
def user_errors() -> Iterator[None]:
    """Prints expected errors on standard error and exits with status 1."""
    try:
        yield
    except (ExpectedError, MissingExtra, CheckpointError, DoesNotFit, InvalidField) as error:
        _exit(str(error))
    except StoreUnavailable as error:
        _exit(f"Redis: {error}")
    except BrokenPipeError:
        sys.exit(1)


def _exit(message: str) -> None:
    print(f"helios: {message}", file=sys.stderr)
    sys.exit(1)
