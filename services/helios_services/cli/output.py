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
def written(path: Path, field: str = "output") -> Iterator[Path]:
    """Yields the file to write; it takes its place if the block ends well, and is removed if not.

    Raises UserError, which names `field`: before the block if the place cannot be written, after it for an error of the
    system's, such as a full disk. What is no ordinary file (/dev/null, a pipe) is written itself.
    """
    target = Path(os.path.realpath(path))  # a link stays one
    part = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
    if _is_special(path, field):
        yield path
        return
    _reserve(path, target, part, field)
    try:
        yield part
        part.replace(target)
    except OSError as error:
        if error.errno not in _OF_STORAGE and not str(error.filename or "").startswith(str(part)):
            raise
        raise unwritable(path, error, field) from None
    finally:
        part.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError, field: str = "output") -> UserError:
    """Says that a file cannot be written, and why."""
    return UserError(f"{field}: {path}: cannot be written: {error.strerror or error}")


def _is_special(path: Path, field: str) -> bool:
    """A device or a pipe. Raises UserError for a path that cannot be."""
    try:
        return path.exists() and not path.is_file() and not path.is_dir()
    except OSError as error:
        raise unwritable(path, error, field) from None


def _reserve(path: Path, target: Path, part: Path, field: str) -> None:
    if target.is_dir():
        raise UserError(f"{field}: {path}: is a folder; allowed: the name of a file, like {path / 'out.mp4'}")
    if not target.parent.is_dir():
        raise UserError(f"{field}: {path}: the folder {str(target.parent)!r} does not exist")
    try:
        if target.exists() and not os.access(target, os.W_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        part.touch(exist_ok=False)
    except OSError as error:
        raise unwritable(path, error, field) from None
