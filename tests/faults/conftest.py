"""The service as processes of its own: `helios gateway` and `helios worker` over a real Redis, killed at will."""

import contextlib
import os
import signal
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from helios_services.client import HeliosClient
from helios_services.jobs.embedded import EmbeddedRedis, free_port
from support.processes import HELIOS, ServiceProcess

JOB: dict[str, Any] = {
    "prompt": "a lake",
    "num_frames": 33 * 5,
    "height": 64,
    "width": 128,
    "seed": 3,
    "pyramid_steps": [4, 4, 4],
}
LEASE_S = 30.0
Seen = Callable[[str], None]


class Service:
    """Starts, finds and kills the processes of one service."""

    def __init__(self, folder: Path, checkpoint: Path, redis_url: str, **settings: str) -> None:
        self._folder = folder
        self._ports = {"gateway": free_port(), "worker": free_port()}
        self._env = os.environ | {
            "HELIOS_REDIS_URL": redis_url,
            "HELIOS_STATE_DIR": str(folder),
            "HELIOS_MODEL__CHECKPOINT": str(checkpoint),
            "HELIOS_MODEL__DTYPE": "float32",
            "HELIOS_JOBS__LEASE_S": str(LEASE_S),
            "HELIOS_JOBS__HEARTBEAT_S": "1",
            "HELIOS_GATEWAY__METRICS_PORT": str(self._ports["gateway"]),
            "HELIOS_DISPATCHER__METRICS_PORT": str(self._ports["worker"]),
            **settings,
        }
        self.worker: ServiceProcess | None = None
        self._gateway = self._start("gateway", "--port", "0")
        self.address = self._gateway.said

    def start_worker(self) -> None:
        """Starts a worker and waits until it is ready."""
        self.worker = self._start("worker")

    def worker_processes(self) -> list[psutil.Process]:
        """The worker, its Ray cluster and the replicas."""
        assert self.worker is not None
        return [self.worker.ps, *self.worker.ps.children(recursive=True)]

    def replica(self, deployment: str) -> psutil.Process:
        """The process of the deployment's replica."""
        (found,) = self.processes(f"ray::ServeReplica:helios:{deployment}")
        return found

    def processes(self, name: str) -> list[psutil.Process]:
        """The worker's processes whose program is, or whose title starts with, `name`."""
        found = []
        for process in self.worker_processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                if process.name() == name or " ".join(process.cmdline()).startswith(name):
                    found.append(process)
        return found

    def metrics(self, process: str) -> str:
        """The exposition of "gateway" or "worker"."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[process]}/metrics", timeout=60) as response:
            return str(response.read(), "utf-8")

    def log(self, command: str) -> str:
        """What the processes of "gateway" or "worker" have logged."""
        return (self._folder / f"{command}.log").read_text()

    def kill_worker(self) -> None:
        """SIGKILL to every process of the worker at once."""
        assert self.worker is not None
        processes = self.worker_processes()
        for process in processes:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=120)
        self.forget_worker()

    def end_worker(self, others: Iterable[psutil.Process] = ()) -> None:
        """SIGTERM: it ends in order, and no process of it is left, nor of the others."""
        assert self.worker is not None
        processes = [*self.worker_processes(), *others]
        self.worker.terminate()
        assert self.worker.ended() == 0
        _, alive = psutil.wait_procs(processes, timeout=60)
        assert alive == []
        self.forget_worker()

    def forget_worker(self) -> None:
        """Reaps a worker that has ended."""
        assert self.worker is not None
        self.worker.ended()
        self.worker = None

    def close(self) -> None:
        """Ends what still runs."""
        for process in (self.worker, self._gateway):
            if process is not None:
                process.close()

    def _start(self, command: str, *options: str) -> ServiceProcess:
        log = self._folder / f"{command}.log"
        return ServiceProcess(HELIOS, command, *options, says=f"{command}: ", log=log, env=self._env)


@pytest.fixture(scope="module")
def service(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    redis = EmbeddedRedis.start(folder)
    service = Service(folder, checkpoint, redis.url)
    yield service
    service.close()
    redis.stop()


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[HeliosClient]:
    with HeliosClient(service.address) as client:
        yield client


@pytest.fixture
def seen(record_property: Callable[[str, object], None]) -> Seen:
    """Records what a test saw, for the table of docs/reliability.md."""
    return lambda text: record_property("seen", text)
