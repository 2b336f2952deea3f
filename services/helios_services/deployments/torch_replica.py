"""What the three model replicas share: one thread for torch, and the device's memory."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog
import torch

from helios_services.config import DeploymentConfig, ServiceConfig
from helios_services.telemetry.logs import configure_logging

log = structlog.get_logger(__name__)
Result = TypeVar("Result")


class TorchReplica:
    """Runs model code on a thread of its own, so that health checks are answered meanwhile."""

    def __init__(self, config: ServiceConfig, deployment: DeploymentConfig) -> None:
        configure_logging(config.log_level)
        if deployment.torch_threads:
            torch.set_num_threads(deployment.torch_threads)
        self.device = torch.device(deployment.device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="torch")

    def load(self, function: Callable[..., Result], *args: object) -> Result:
        """Calls `function` on the torch thread and waits for it: for constructors, to load, compile and warm up.

        Not on the constructor's own thread: torch keeps its compiler's settings, and CUDA's libraries their handles and
        plans, for each thread; a call would find nothing of what another thread has prepared.
        """
        return self._thread.submit(function, *args).result()

    async def run(self, function: Callable[..., Result], *args: object) -> Result:
        """Calls `function` on the torch thread. Ends the process if the device has failed.

        The device's context is lost then, and with it every call to come. A replica that lived on would fail them all
        quickly, and so attract more; of one that has died the caller knows at once, and Serve replaces it.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
        except torch.AcceleratorError:
            log.critical("device_failed", device=str(self.device), exc_info=True)
            os._exit(1)

    def memory_bytes(self) -> int:
        """Peak memory of the device; 0 on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
