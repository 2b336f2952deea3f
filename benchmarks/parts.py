"""Benchmarks as processes of their own, one after the other, each ended when its time is over."""

import subprocess
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

DONE, OUT_OF_TIME = "done", "out of time"
GRACE_S = 20.0
"""Between asking a process to end and ending it."""


def run(command: Sequence[str], limit_s: float) -> str:
    """Runs a Python command line (what follows `python`); how it ended."""
    print(f"\n$ python {' '.join(command)}", flush=True)
    process = subprocess.Popen([sys.executable, *command])
    try:
        code = process.wait(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return OUT_OF_TIME
    return DONE if code == 0 else f"failed ({code})"


class Outcomes:
    """What came of each part, as a line when it ends and as a table when all have."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self._table = Table("part", "s", "limit, s", "")

    def run(self, name: str, command: Sequence[str], limit_s: float) -> None:
        """Runs a part."""
        before = time.monotonic()
        outcome = run(command, limit_s)
        self.note(name, outcome, f"{time.monotonic() - before:.0f}", f"{limit_s:.0f}")

    def note(self, name: str, outcome: str, taken: str = "-", limit: str = "-") -> None:
        """Records what came of a part that ran, or why it did not run. taken, limit: seconds, as text."""
        self.outcomes[name] = outcome
        self._table.add_row(name, taken, limit, outcome)
        print(f"{name}: {outcome}, {taken} s of {limit}", flush=True)

    def show(self) -> None:
        """The table."""
        Console(width=100).print(self._table)
