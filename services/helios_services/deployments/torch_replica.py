"""What the three model replicas share: one thread for torch, and the device's memory."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from helios_services.config import DeploymentConfig, ServiceConfig
from helios_services.telemetry.logs import configure_logging

Result = TypeVar("Result")


class TorchReplica:
    """Runs model code on a thread of its own, so that health checks are answered meanwhile."""

    def __init__(self, config: ServiceConfig, deployment: DeploymentConfig) -> None:
        configure_logging(config.log_level)
        if deployment.torch_threads:
            torch.set_num_threads(deployment.torch_threads)
        self.device = torch.device(deployment.device)
        self._broken: Exception | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="torch")

    async def run(self, function: Callable[..., Result], *args: object) -> Result:
        """Calls `function` on the torch thread."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
        except torch.AcceleratorError as error:  # the device's context is lost, and with it every call to come
            self._broken = error
            raise

    async def check_health(self) -> None:
        """Called by Serve; raising makes it replace the replica."""
        if self._broken is not None:
            raise RuntimeError("the device has failed") from self._broken

    def memory_bytes(self) -> int:
        """Peak memory of the device; 0 on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
