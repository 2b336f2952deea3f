"""The processes under load: redis-server, gateways, and the stand-in worker."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import grpc
import psutil

from helios.v1.video_generation_pb2_grpc import VideoGenerationStub
from helios_services.config import GatewayConfig, JobsConfig, RedisConfig, ServiceConfig
from helios_services.jobs.embedded import EmbeddedRedis, free_port

CHANNELS = 16
"""Connections of the load generator; calls are spread over them."""
LIMIT = 1_000_000


class Processes:
    """A redis-server, `gateways` gateways on one port each, and a worker that can be started; ended on exit."""

    def __init__(self, folder: Path, *, gateways: int) -> None:
        self._redis = EmbeddedRedis.start(folder)
        self._configs = [
            ServiceConfig(
                state_dir=folder,
                redis=RedisConfig(url=self._redis.url),
                jobs=JobsConfig(max_queued=LIMIT, lease_s=120.0, heartbeat_s=30.0),
                gateway=GatewayConfig(port=0, http_port=None, metrics_port=free_port(), max_concurrent_rpcs=20_000),
            )
            for _ in range(gateways)
        ]
        self.config = self._configs[0]
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._addresses = [self._gateway(number, config) for number, config in enumerate(self._configs)]
        assert self._redis.pid is not None
        self._watched = {"redis-server": psutil.Process(self._redis.pid), "load generator": psutil.Process()}
        self.gateways = [psutil.Process(self._children[f"gateway {number}"].pid) for number in range(gateways)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children.values():
            child.terminate()
        for child in self._children.values():
            child.wait(60)
            assert child.stdout is not None
            child.stdout.close()
        self._redis.stop()

    def channels(self) -> list[grpc.aio.Channel]:
        """New connections, in turn to each gateway."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 16 << 20)]
        return [
            grpc.aio.insecure_channel(self._addresses[number % len(self._addresses)], options=options)
            for number in range(CHANNELS)
        ]

    def worker(self, *, chunk_s: float, fragment_bytes: int) -> None:
        """Starts the stand-in worker."""
        command = ["-m", "benchmarks.load_model.worker", str(chunk_s), str(fragment_bytes)]
        self._start("worker", command)
        self._watched["stand-in worker"] = psutil.Process(self._children["worker"].pid)

    def end_worker(self) -> None:
        """Ends it."""
        child = self._children.pop("worker")
        del self._watched["stand-in worker"]
        child.kill()
        child.wait(60)
        assert child.stdout is not None
        child.stdout.close()

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds used so far, by process; all gateways together."""
        used = {name: _cpu_s(process) for name, process in self._watched.items()}
        return {"gateway": sum(map(_cpu_s, self.gateways)), **used}

    def _gateway(self, number: int, config: ServiceConfig) -> str:
        child = self._start(f"gateway {number}", ["-m", "helios_services.gateway.main"], config)
        assert child.stdout is not None
        said = child.stdout.readline()
        assert said.startswith("gateway: "), said
        return said.removeprefix("gateway: ").strip()

    def _start(self, name: str, arguments: list[str], config: ServiceConfig | None = None) -> "subprocess.Popen[str]":
        child = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert child.stdin is not None
        child.stdin.write((config or self.config).model_dump_json())
        child.stdin.close()
        self._children[name] = child
        return child


class CpuUse:
    """Cores used by each process while the block ran: `shares`."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.shares: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._start_s, self._before = time.perf_counter(), self._processes.cpu_s()
        return self

    def __exit__(self, *_: object) -> None:
        elapsed_s = time.perf_counter() - self._start_s
        after = self._processes.cpu_s()
        self.shares = {name: (after[name] - self._before.get(name, 0.0)) / elapsed_s for name in after}


def stubs(channels: list[grpc.aio.Channel]) -> list[Any]:
    """A stub for each connection (its types are those of blocking calls)."""
    return [VideoGenerationStub(channel) for channel in channels]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
