"""A gateway in the test's own process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from helios_services.config import ServiceConfig
from helios_services.gateway.server import Gateway


@asynccontextmanager
async def serving(config: ServiceConfig, **options: Any) -> AsyncIterator[Gateway]:
    """options: of the configuration's section `gateway`, where they differ."""
    gateway = Gateway(config.model_copy(update={"gateway": config.gateway.model_copy(update=options)}))
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()
