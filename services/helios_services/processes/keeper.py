"""A process that is started again when it ends by itself."""

import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

from helios_services.config import ConfigError

log = structlog.get_logger(__name__)
Process = subprocess.Popen[Any]
OnLost = Callable[[str], None]
"""Is told, in one line, what has ended for good. Called from a thread."""


def unheeded(_reason: str) -> None:
    """For callers that end soon by themselves; what has ended is in the log."""


TRIES = 5
"""A process that has ended so often in a row is given up."""
STEADY_S = 60.0
"""One that has lived this long starts its row anew."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0


class Keeper:
    """Keeps one process alive until it is closed.

    process: one that runs. start: starts another in its place, with the same address; raises ConfigError. end: ends one
    in order and returns when it has ended; it may have ended already.
    """

    def __init__(
        self,
        name: str,
        process: Process,
        *,
        start: Callable[[], Process],
        end: Callable[[Process], None],
        on_lost: OnLost,
    ) -> None:
        self._name, self._start, self._end, self._on_lost = name, start, end, on_lost
        self._process, self._closing = process, threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"keeper-{name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the process."""
        self._closing.set()
        self._end(self._process)
        self._thread.join()

    def _keep(self) -> None:
        failures, began_s = 0, time.monotonic()
        reason = self._awaited()
        while not self._closing.is_set():
            failures = 1 if time.monotonic() - began_s > STEADY_S else failures + 1
            log.error("child_ended", child=self._name, reason=reason, in_a_row=failures)
            if failures >= TRIES:
                self._on_lost(f"{self._name}: ended {failures} times in a row; the last time {reason}")
                return
            if self._closing.wait(min(FIRST_WAIT_S * 2 ** (failures - 1), LONGEST_WAIT_S)):
                return
            began_s = time.monotonic()
            try:
                self._process = self._start()
            except ConfigError as error:
                reason = str(error)
                continue
            log.info("child_started_again", child=self._name)
            if self._closing.is_set():  # `close` may have seen the one before only
                self._end(self._process)
            reason = self._awaited()

    def _awaited(self) -> str:
        code = self._process.wait()
        return f"with status {code}" if code >= 0 else f"by signal {-code}"
