"""The Ray cluster that this process has started, and whether it still lives."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from ray._private import worker

from helios_services.processes.keeper import OnLost

log = structlog.get_logger(__name__)
NEEDED = ("gcs_server", "raylet")
"""Ray does without its other processes."""
PERIOD_S = 0.5


def lost_ray() -> str:
    """Which needed process of Ray has ended, in one line; empty if all live, or Ray was not started here."""
    node = worker._global_node
    if node is None:
        return ""
    ended = [f"{kind} (status {process.returncode})" for kind, process in node.dead_processes() if kind in NEEDED]
    return f"ray: {', '.join(ended)} has ended" if ended else ""


@contextmanager
def watched_ray(on_lost: OnLost) -> Iterator[None]:
    """Tells `on_lost` if Ray ends while the context is open: it cannot be started again below an application."""
    closing = threading.Event()

    def watch() -> None:
        while not closing.wait(PERIOD_S):
            reason = lost_ray()
            if reason:
                log.critical("ray_lost", reason=reason)
                on_lost(reason)
                return

    thread = threading.Thread(target=watch, name="watch-ray", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join()
