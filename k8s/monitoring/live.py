"""A service under load on this machine, watched by a real Prometheus with this folder's configuration and rules."""

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import yaml

from helios_services.config import ServiceConfig
from helios_services.jobs.embedded import EmbeddedRedis, free_port
from k8s.monitoring.generate import FOLDER
from k8s.monitoring.load import MAX_QUEUED

EXPORTERS = ("redis_exporter", "prometheus-redis-exporter")
T = TypeVar("T")
SCRAPE_S = 5
"""Instead of 15 s: minutes of real time must fill the windows of the queries. Also how long a scrape may take."""


class Prometheus:
    """A Prometheus on loopback."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **params: str | float) -> Any:
        """The `data` of an API call. Raises ValueError with Prometheus' message for a bad query."""
        try:
            with urllib.request.urlopen(
                f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(params)}", timeout=30
            ) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(json.load(error)["error"]) from None

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query now."""
        data = self.get("query", query=expr)
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        series: list[dict[str, Any]] = data["result"]
        return series


@contextmanager
def watched_service(checkpoint: Path, folder: Path) -> Iterator[tuple[str, Prometheus]]:
    """Yields the gateway's address and the Prometheus that scrapes the service, once every target is up.

    Needs `prometheus` on PATH; without a redis_exporter its target is left out.
    """
    ports = {name: free_port() for name in ("gateway", "dispatcher", "redis", "prometheus")}
    with ExitStack() as cleanup:
        redis = EmbeddedRedis.start(folder)
        cleanup.callback(redis.stop)
        config = ServiceConfig.model_validate(
            {
                "state_dir": folder / "state",
                "log_level": "error",
                "model": {"checkpoint": str(checkpoint), "dtype": "float32"},
                "redis": {"url": redis.url},
                "jobs": {"max_queued": MAX_QUEUED},
                "gateway": {"port": 0, "http_port": 0, "metrics_port": ports["gateway"]},
                "dispatcher": {"metrics_port": ports["dispatcher"]},
            }
        )
        address, ports["ray"] = cleanup.enter_context(_stack(config))
        exporter = next(filter(None, map(shutil.which, EXPORTERS)), None)
        if exporter is None:
            del ports["redis"]
        else:
            listen = ["--web.listen-address", f"127.0.0.1:{ports['redis']}"]
            socket = redis.url.partition("?")[0]  # the exporter would take ?db=0 for a part of the path
            cleanup.enter_context(_process([exporter, "--redis.addr", socket, *listen], folder / "exporter.log"))
        yield address, cleanup.enter_context(_prometheus(folder / "prometheus", ports))


@contextmanager
def _stack(config: ServiceConfig) -> Iterator[tuple[str, int]]:
    context = get_context("spawn")  # Ray in a process of its own: it ends whole
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, config))
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        process.join()


def _serve(pipe: Connection, config: ServiceConfig) -> None:
    import ray

    from helios_services.stack import running_stack

    with running_stack(config) as addresses:
        (node,) = ray.nodes()
        pipe.send((addresses.grpc, node["MetricsExportPort"]))
        try:
            pipe.recv()
        except EOFError:  # closed by the other side: the end
            return


@contextmanager
def _prometheus(folder: Path, ports: dict[str, int]) -> Iterator[Prometheus]:
    """With this folder's configuration and rules; only targets and intervals differ."""
    shutil.copytree(FOLDER / "rules", folder / "rules")
    (folder / "targets").mkdir()
    for name in ports.keys() - {"prometheus"}:
        (folder / f"targets/{name}.yaml").write_text(json.dumps([{"targets": [f"127.0.0.1:{ports[name]}"]}]))
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
    ]
    with _process(command, folder / "prometheus.log"):
        prometheus = Prometheus(ports["prometheus"])
        wait_until(lambda: len(prometheus.query("up == 1")) == len(ports) - 1, 300)
        yield prometheus


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[None]:
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        process.wait(120)


def wait_until(condition: Callable[[], T], limit_s: float) -> T:
    """The first true answer of `condition()`. Raises TimeoutError when there is none; what it raises is ignored."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            if answer := condition():
                return answer
        except (OSError, ValueError):
            pass
        time.sleep(0.5)
    raise TimeoutError(f"not so after {limit_s} s")
