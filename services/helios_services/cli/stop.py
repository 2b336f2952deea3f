"""When and why a command that runs until it is told ends."""

import os
import signal
import sys
import threading

LAST_RESORT_S = 60.0
"""A command that has lost what it needs ends in order within this time, or without."""


class Stop:
    """Waits for a signal, or for the loss of something that the command cannot do without."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._reason = ""

    def listen(self) -> None:
        """From now on SIGTERM and SIGINT end the command in order. Ray installs handlers of its own when it starts."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._event.set())

    def lost(self, reason: str) -> None:
        """Ends the command. reason: what is lost, in one line. May be called from any thread."""
        self._reason = self._reason or reason
        self._event.set()
        last_resort = threading.Timer(LAST_RESORT_S, self.leave)
        last_resort.daemon = True
        last_resort.start()

    def wait(self) -> None:
        """Returns when the command is to end."""
        self._event.wait()

    def leave(self) -> None:
        """Ends the process with status 1 and the reason, if something was lost; returns if nothing was.

        At once: what is registered to run at exit would wait for a Ray that is gone.
        """
        if self._reason:
            print(f"helios: {self._reason}", file=sys.stderr, flush=True)
            sys.stdout.flush()
            os._exit(1)
