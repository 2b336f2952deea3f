"""The whole service in a process of its own, with the cores it may use, and its videos as a client sees them."""

import os
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from uuid import uuid4

from benchmarks.engine_process import Run
from helios_engine.request import GenerationRequest
from helios_services.cli.progress import stages_of
from helios_services.client import HeliosClient
from helios_services.config import ServiceConfig

SENT = ("prompt", "num_frames", "height", "width", "seed", "fps", "pyramid_steps")
"""Fields of a request that the benchmark sets; the service's defaults for the others are the engine's."""


class ServiceProcess:
    """Redis, Ray, the model and the gateway; requests go through gRPC."""

    def __init__(self, checkpoint: str, cores: set[int], folder: Path) -> None:
        config = ServiceConfig.model_validate(
            {
                "state_dir": folder / uuid4().hex,
                "log_level": "warning",
                "model": {"checkpoint": checkpoint, "dtype": "float32"},
                "gateway": {"port": 0, "http_port": 0, "metrics_port": 0},
                "dispatcher": {"metrics_port": 0},
            }
        )
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, config, cores))
        self._process.start()
        self._client = HeliosClient(self._pipe.recv())

    def run(self, request: GenerationRequest) -> Run:
        """Generates one video; arrivals are those at this client."""
        params = {name: getattr(request, name) for name in SENT}
        start, arrivals, stages = time.perf_counter(), [], []
        job = self._client.submit(priority="interactive", **params)
        for segment in self._client.stream(job.id):
            if segment.info is not None:
                arrivals.append(time.perf_counter() - start)
                stages.append(stages_of(segment.info))
        for _ in self._client.watch(job.id):
            pass  # its publication must not disturb the next measurement
        return Run(arrival_s=arrivals, stage_s=stages)

    def close(self) -> None:
        """Shuts the service down."""
        self._client.close()
        self._pipe.send(None)
        self._process.join()


def _serve(pipe: Connection, config: ServiceConfig, cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)
    from helios_services.stack import running_stack

    with running_stack(config) as addresses:
        pipe.send(addresses.grpc)
        pipe.recv()
