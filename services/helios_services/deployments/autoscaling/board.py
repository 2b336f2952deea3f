"""The work, from the dispatchers to Serve's controller, where the policy runs.

The store is the truth, but the controller does not read it: it would have to be given the password of Redis, in policy
arguments that Serve logs and shows, and a way there. A dispatcher, which has both and always runs, puts the count into
the key-value store of the Ray cluster (its GCS), where the controller keeps its own state. (Serve's custom metrics do
not do: a policy sees those of its own deployment alone, and one with no replica has none; policies that see all
deployments exist only for applications deployed from a config file.)

A read takes a thread, so that a GCS that does not answer does not stop the controller.
"""

import json
import logging
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict
from uuid import uuid4

from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

from helios_services.jobs.work import Work

NAMESPACE = b"helios"
READ_PERIOD_S = 0.5
STALE_S = 15.0
"""A dispatcher reports every second; the count of dispatchers that are gone says nothing."""

log = logging.getLogger("ray.serve")  # the controller's; structlog is not configured there


def publish(app: str, work: Work) -> None:
    """Puts the count up, overwriting the last one, whoever's it was: all dispatchers count the same jobs. Blocks."""
    sheet = {"id": uuid4().hex, "work": asdict(work)}
    _internal_kv_put(_key(app), json.dumps(sheet).encode(), overwrite=True, namespace=NAMESPACE)


def fetch(app: str) -> bytes | None:
    """What was published last. Blocks."""
    sheet: bytes | None = _internal_kv_get(_key(app), namespace=NAMESPACE)
    return sheet


def _key(app: str) -> bytes:
    return f"work:{app}".encode()


class _Sheet:
    """What a reader and its thread share; the thread knows no reader, so that readers can be garbage."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.current: tuple[float, Work] | None = None


class BoardReader:
    """The latest count, read on a thread that ends with the reader."""

    def __init__(self, read: Callable[[], bytes | None]) -> None:
        self._sheet = sheet = _Sheet()
        threading.Thread(target=_run, args=(sheet, read), name="helios-work", daemon=True).start()
        weakref.finalize(self, sheet.stop.set)

    def latest(self) -> Work | None:
        """None: dispatchers have not been heard for a while."""
        current = self._sheet.current
        if current is None or time.monotonic() - current[0] > STALE_S:
            return None
        return current[1]


def _run(sheet: _Sheet, read: Callable[[], bytes | None]) -> None:
    last, failing = None, False
    first = True
    while not sheet.stop.wait(0 if first else READ_PERIOD_S):
        try:
            text = read()
            # the first sheet may be years old, and clocks of two nodes cannot be compared: news is what has changed
            if text is not None and text != last and not first:
                sheet.current = time.monotonic(), Work(**json.loads(text)["work"])
            last, first, failing = text, False, False
        except Exception as error:  # the policy then keeps the numbers as they are
            if not failing:
                log.warning("helios: the work cannot be read: %s", error)
            failing, first = True, False
