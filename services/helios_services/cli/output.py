"""The file that a command writes: checked before any work is done, written beside its place, and then renamed."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helios_services.cli.errors import UserError

_OF_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Yields the file to write; it takes its place if the block ends well, and is removed if not.

    Raises UserError before the block if the place cannot be written, after it for an error of the system's: the
    disk is full, say. What is no ordinary file (/dev/null, a pipe) is written itself.
    """
    target = Path(os.path.realpath(path))  # a link stays one
    part = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    if _is_special(path):
        yield path
        return
    _reserve(path, target, part)
    try:
        yield part
        part.replace(target)
    except OSError as error:
        if error.errno not in _OF_STORAGE and not str(error.filename or "").startswith(str(part)):
            raise
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def _is_special(path: Path) -> bool:
    """A device or a pipe. Raises UserError for a path that cannot be."""
    try:
        return path.exists() and not path.is_file() and not path.is_dir()
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def _reserve(path: Path, target: Path, part: Path) -> None:
    if target.is_dir():
        raise UserError(f"{path}: is a folder; allowed: the name of a file, like {path / 'out.mp4'}")
    if not target.parent.is_dir():
        raise UserError(f"{path}: the folder {str(target.parent)!r} does not exist")
    if target.exists() and not os.access(target, os.W_OK, effective_ids=True):
        raise UserError(f"{path}: cannot be written: Permission denied")
    try:
        part.touch(exist_ok=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
