"""Whether the Redis server has its known holes in Lua mended: whoever may run scripts could take an old server over.

A version does not tell: distributions mend without changing it. So the server is asked to do what only those do that
lack the fixes of October 2025 (CVE-2025-46817, -46818, -46819 and -49844, released together): let a script write into a
table that all scripts share. What it is asked to write is what stands there already. Later holes show in no such way.
"""

import asyncio
from typing import Any

import redis.asyncio as aio
import structlog

from helios_services.config import RedisConfig
from helios_services.jobs.connect import answered, listening_client
from helios_services.jobs.errors import StoreUnavailable
from helios_services.jobs.keys import Keys

log = structlog.get_logger(__name__)

PROBE = """
local written = pcall(function()
    local shared = getmetatable('')
    shared.__index = shared.__index
end)
return {written and 1 or 0, redis.REDIS_VERSION or ''}
"""
MENDED_IN = "6.2.20, 7.2.11, 7.4.6, 8.0.4, 8.2.2, or a distribution's own fix"
RETRY_S = 5.0


async def warn_of_old_server(config: RedisConfig) -> None:
    """Logs a warning that names the server if it has the holes. Waits for it to answer, for as long as it takes."""
    client = listening_client(config)
    try:
        while True:
            try:
                with answered():
                    patched, version = await _look(client, Keys(config.namespace).of("probe"))
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)
            else:
                break
    finally:
        await client.aclose()
    if not patched:
        log.warning("redis_has_known_holes", version=version, mended_in=MENDED_IN, see="docs/security.md")


async def _look(client: Any, key: str) -> tuple[bool, str]:
    """Whether the fixes are there, and the server's version. Raises RedisError."""
    written, version = await client.eval(PROBE, 1, key)
    if not version and isinstance(client, aio.Redis):  # scripts know it from 7.0 on
        hello: Any = await client.execute_command("HELLO")  # type: ignore[no-untyped-call]
        pairs = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2], strict=True))
        version = pairs[b"version"]
    return not written, version.decode() or "older than 7.0"
