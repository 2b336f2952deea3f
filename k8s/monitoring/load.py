"""Work for a small service: jobs of every priority, more than the queue takes, a mistake, and a replica that dies."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any

import psutil

from helios_services.client import HeliosClient
from helios_services.client.errors import HeliosError

JOB: dict[str, Any] = {
    "prompt": "a lake",
    "num_frames": 99,
    "height": 64,
    "width": 128,
    "seed": 3,
    "pyramid_steps": [1, 1, 1],
}
MAX_QUEUED = 8
PRIORITIES = ("batch", "normal", "interactive")


def make_load(address: str, rounds: int = 1) -> None:
    """Returns when all of its jobs have ended."""
    with HeliosClient(address) as client:
        for number in range(rounds):
            jobs = [client.submit(priority=name, **JOB) for name in PRIORITIES for _ in range(2)]
            flood(client)
            with suppress(HeliosError):
                client.get("no-such-job")
            if number == 0:
                for _ in client.stream(jobs[-1].id):
                    time.sleep(1)  # into the next chunk
                    kill_one_decoder()
                    break
            for job in jobs:
                for _ in client.stream(job.id):
                    pass
                for _ in client.watch(job.id):
                    pass


@contextmanager
def steady_load(address: str) -> Iterator[None]:
    """Meanwhile one job after the other, so that rates keep having something to count."""
    over = Event()

    def work() -> None:
        with HeliosClient(address) as client:
            while not over.wait(1.0):
                for _ in client.stream(client.submit(**JOB).id):
                    pass

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            yield
        finally:
            over.set()
    working.result()


def flood(client: HeliosClient) -> None:
    """Submits until it is refused, and cancels all of that."""
    accepted: list[str] = []
    with suppress(HeliosError):
        while len(accepted) < 2 * MAX_QUEUED:
            accepted.append(client.submit(priority="batch", **JOB).id)
    for job_id in accepted:
        with suppress(HeliosError):  # it has been made meanwhile
            client.cancel(job_id)


def kill_one_decoder() -> None:
    """SIGKILL, as an out-of-memory killer would; the dispatcher repeats the call on the next replica."""
    next(_replicas("decoder")).send_signal(signal.SIGKILL)


def _replicas(deployment: str) -> Iterator[psutil.Process]:
    """Replicas below this process; other services of the machine are left alone."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if f"ServeReplica:helios:{deployment}" in " ".join(process.cmdline()):
                yield process
