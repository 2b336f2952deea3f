"""Files and folders that other users of the machine can neither read nor write."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helios_services.config import ConfigError

SOCKET_PATH_BYTES = 103
"""The longest path of a Unix socket: macOS's bound; Linux has four more."""
_RANDOM_LETTERS = 8  # what tempfile.mkdtemp appends


@contextmanager
def private_umask() -> Iterator[None]:
    """New files of this process and of those that it starts are for their user only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def check_folder(name: str, path: Path) -> None:
    """Makes the folder private if it is not there; in one that is, other users must not exchange what lies in it.

    Raises ConfigError, with the setting's name.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = path.stat()
    if status.st_uid not in (os.geteuid(), 0):  # its owner may rename what lies in it, whatever its mode says
        raise ConfigError(f"{name}: {path} is not allowed; allowed: a folder that is this user's or root's")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
        if status.st_uid != os.geteuid():
            raise ConfigError(f"{name}: {path} is not allowed; allowed: a folder that other users cannot write to")
        path.chmod(stat.S_IMODE(status.st_mode) & ~(stat.S_IWGRP | stat.S_IWOTH))


def private_folder(path: Path) -> Path:
    """Makes the folder, or closes the one that is there to other users. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    return path


def short_private_folder(prefix: str, longest: int) -> Path:
    """A new private folder whose path has at most `longest` bytes, whatever TMPDIR is: sockets lie below it.

    Raises ConfigError where there is none.
    """
    parents = dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp"))
    for parent in parents:
        if len(os.fsencode(f"{parent}/{prefix}")) + _RANDOM_LETTERS <= longest and os.access(parent, os.W_OK):
            return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    raise ConfigError(
        f"TMPDIR: {tempfile.gettempdir()} is not allowed; allowed: a folder that can be written and whose path has "
        f"at most {longest - _RANDOM_LETTERS - len(prefix) - 1} bytes (sockets lie below it)"
    )
