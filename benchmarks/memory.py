"""The memory of this process over time, from /proc."""

import threading
from pathlib import Path

STATUS = Path("/proc/self/status")
FIELDS = {"VmRSS": "all", "RssAnon": "anonymous", "RssFile": "file"}
PERIOD_S = 0.002


def resident() -> dict[str, int]:
    """Bytes of resident memory: all, anonymous, and mapped from files."""
    return {name: _kib(field) * 1024 for field, name in FIELDS.items()}


def high_water() -> int:
    """Most bytes ever resident (VmHWM), as the kernel counts them: no sampling."""
    return _kib("VmHWM") * 1024


def reset_high_water() -> None:
    """Makes `high_water` count from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def _kib(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1])


class PeakMemory:
    """Samples `resident` in a thread while the `with` block runs; `peak` holds the highest value of each kind."""

    def __init__(self) -> None:
        self.peak = resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.is_set():
            for name, size in resident().items():
                self.peak[name] = max(self.peak[name], size)
            self._done.wait(PERIOD_S)
