"""Says which extra of the distribution brings what an import lacks."""

from collections.abc import Iterator
from contextlib import contextmanager

OURS = ("helios", "helios_engine", "helios_kernels", "helios_services", "helios_training")


class MissingExtra(ImportError):
    """A part of this package was used whose dependencies are not installed."""


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Wraps the imports of `what`. Raises MissingExtra where a package that `extra` brings is not installed.

    A module of our own that is not found is a defect of ours, and stays a ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in OURS:
            raise
        raise MissingExtra(
            f"{what} needs {package!r}, which is not installed: pip install 'helios-serve[{extra}]'"
        ) from None
