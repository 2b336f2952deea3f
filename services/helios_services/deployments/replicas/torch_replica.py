"""What the three model replicas share: one thread for torch, and the device's memory."""

import asyncio
import os
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import structlog
import torch

from helios_services.config import DeploymentConfig, ServiceConfig
from helios_services.deployments.ray_loopback import keep_replica_on_loopback
from helios_services.telemetry.logs import configure_logging

log = structlog.get_logger(__name__)
Result = TypeVar("Result")


class TorchReplica:
    """Runs model code on a thread of its own, so that health checks are answered meanwhile."""

    def __init__(self, config: ServiceConfig, deployment: DeploymentConfig) -> None:
        configure_logging(config.log_level)
        keep_replica_on_loopback()
        if deployment.torch_threads:
            torch.set_num_threads(deployment.torch_threads)
        self.device = torch.device(deployment.runs_on)
        self._limit_s = deployment.request_timeout_s
        self._began_s: dict[int, float] = {}
        """When the call began that a thread is at (time.monotonic()), by the thread's identity."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="torch")

    def load(self, function: Callable[..., Result], *args: object) -> Result:
        """Calls `function` on the torch thread and waits for it: for constructors, to load, compile and warm up.

        Not on the constructor's own thread: torch keeps its compiler's settings, and CUDA's libraries their handles and
        plans, for each thread; a call would find nothing of what another thread has prepared.
        """
        return self._thread.submit(function, *args).result()

    async def run(self, function: Callable[..., Result], *args: object) -> Result:
        """Calls `function` on the torch thread. Ends the process if the device has failed."""
        return await self.result(self._thread.submit(self._call, function, *args))

    async def result(self, work: Future[Result]) -> Result:
        """What a thread's work comes to. Ends the process if the device has failed.

        The device's context is lost then, and with it every call to come. A replica that lived on would fail them all
        quickly, and so attract more; of one that has died the caller knows at once, and Serve replaces it.
        """
        try:
            return await asyncio.wrap_future(work)
        except torch.AcceleratorError:
            log.critical("device_failed", device=str(self.device), exc_info=True)
            os._exit(1)

    async def check_health(self) -> None:
        """Called by Serve. Ends the process if a call hangs: no caller waits for it any more, and all others would.

        Not by raising: Serve would ask twice more, and then wait for the call to end before it kills the replica.
        """
        began_s = min(list(self._began_s.values()), default=None)
        if began_s is not None and time.monotonic() - began_s > self._limit_s:
            log.critical("call_hangs", device=str(self.device), limit_s=self._limit_s)
            os._exit(1)

    def _call(self, function: Callable[..., Result], *args: object) -> Result:
        thread = threading.get_ident()
        self._began_s[thread] = time.monotonic()
        try:
            return function(*args)
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)  # they hold what the call had on the device
            torch.cuda.empty_cache()  # what is left in pieces may do in one, here or in a process beside
            raise
        finally:
            del self._began_s[thread]

    def memory_bytes(self) -> int:
        """Peak memory of the device; 0 on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
