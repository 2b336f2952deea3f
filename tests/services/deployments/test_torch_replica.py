"""A replica whose device has failed does not live on."""

import multiprocessing

import pytest
import torch

from helios_services.config import DeploymentConfig, ServiceConfig
from helios_services.deployments.torch_replica import TorchReplica


def serve(error: str) -> None:
    """One call of a replica that fails; exits with 7 if the replica survives."""
    import asyncio

    def fails() -> None:
        raise getattr(torch, error)("failed")

    async def call() -> None:
        try:
            await TorchReplica(ServiceConfig(), DeploymentConfig()).run(fails)
        except RuntimeError:
            raise SystemExit(7) from None

    asyncio.run(call())


@pytest.mark.parametrize(("error", "code"), [("AcceleratorError", 1), ("OutOfMemoryError", 7)])
def test_a_failed_device_ends_the_process_and_a_full_one_does_not(error: str, code: int) -> None:
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(error,))
    process.start()
    process.join(120)
    assert process.exitcode == code
