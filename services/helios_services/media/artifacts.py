"""Where finished videos and uploads are kept: any fsspec file system, a local folder by default."""

import contextlib
import re
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
from fsspec.core import url_to_fs

from helios_services.file_kinds import SUFFIXES

NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,127}}\.({'|'.join(SUFFIXES.values())})")


class ArtifactStore:
    """Files by name below one URL. Raises ValueError for names other than `<id>.<type>`, OSError when storage fails."""

    def __init__(self, url: str) -> None:
        self._fs: fsspec.AbstractFileSystem
        self._fs, self._root = url_to_fs(url)

    def publish(self, file: Path, name: str) -> None:
        """Copies a local file in; it appears whole or not at all. Publishing a name again replaces it."""
        target = self._path(name)
        staged = f"{target}.partial"
        self._fs.makedirs(self._root, exist_ok=True)
        try:
            self._fs.put_file(str(file), staged)
            self._fs.mv(staged, target)
        except BaseException:
            with contextlib.suppress(OSError):
                self._fs.rm_file(staged)
            raise

    def delete(self, name: str) -> None:
        """Deletes a file, if it is there, and what was copied of it before a process died."""
        for path in (self._path(name), f"{self._path(name)}.partial"):
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(path)

    def size(self, name: str) -> int:
        """Bytes. Raises FileNotFoundError."""
        return int(self._fs.size(self._path(name)))

    def open(self, name: str, offset: int = 0) -> BinaryIO:
        """A reader that starts at `offset`. Raises FileNotFoundError."""
        # read by read, and no more: an object store's reader would fetch 50 MiB ahead, for each that reads 1
        reader = cast(BinaryIO, self._fs.open(self._path(name), "rb", cache_type="none"))
        reader.seek(offset)
        return reader

    def _path(self, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"artifact name: {name!r} is not allowed; allowed: letters, digits, - and _, then a type")
        return f"{self._root}/{name}"
