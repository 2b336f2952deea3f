"""Writes to standard output what the replicas of this pod write to Ray's log files: `kubectl logs POD -c logs`.

Lines that are JSON objects, as our processes write them, stay as they are; others begin with their file's name.
"""

import sys
import time
from pathlib import Path

PATTERNS = ("worker-*.out", "worker-*.err", "serve/*.log")
PIECE = 1 << 20
"""Bytes that are read of a file before the next one has its turn."""


class Follower:
    """Reads whole lines of files that come, grow and are rotated."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._read: dict[int, int] = {}
        """Bytes that were read, by inode: a rotated file keeps it."""

    def lines(self) -> list[str]:
        """What is new."""
        found: list[str] = []
        for pattern in PATTERNS:
            for path in sorted(self._logs.glob(pattern + "*")):
                found += self._new(path)
        return found

    def _new(self, path: Path) -> list[str]:
        try:
            with path.open("rb") as file:
                inode = path.stat().st_ino
                file.seek(self._read.get(inode, 0))
                piece = file.read(PIECE)
        except OSError:  # rotated away between the two
            return []
        whole = piece.rfind(b"\n") + 1 or (len(piece) if len(piece) == PIECE else 0)
        self._read[inode] = self._read.get(inode, 0) + whole
        texts = piece[:whole].decode(errors="replace").splitlines()
        return [text if text.startswith("{") else f"{path.name}: {text}" for text in texts if text]


if __name__ == "__main__":
    follower = Follower(Path(sys.argv[1]))
    while True:
        for line in follower.lines():
            print(line)
        sys.stdout.flush()
        time.sleep(1)
