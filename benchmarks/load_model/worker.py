"""The stand-in worker: claims every job at once and appends a chunk to each every `chunk_s`, a fixed-time stage.

It makes no video: a fragment is so many random bytes. What is left of a worker is what the queue and the gateway see of
it. `python -m benchmarks.load_model.worker CHUNK_S FRAGMENT_BYTES` with a ServiceConfig as JSON on standard input.
"""

import asyncio
import os
import random
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import uuid4

from helios_services.config import ServiceConfig
from helios_services.jobs.connector import Connector
from helios_services.jobs.errors import StoreUnavailable
from helios_services.jobs.records import ChunkRecord, Claim
from helios_services.jobs.store import JobStore

Value = TypeVar("Value")
POLL_S = 0.02
CHECKPOINT_BYTES = 1024


async def work(config: ServiceConfig, chunk_s: float, fragment_bytes: int) -> None:
    """Runs for ever."""
    store = Connector(config.redis, config.jobs).store()
    fragment = os.urandom(fragment_bytes)
    async with asyncio.TaskGroup() as group:
        while True:
            nonce = uuid4().hex
            claim = await _durably(lambda nonce=nonce: store.claim(config.model.name, "stand-in", nonce))  # type: ignore[misc]
            if claim is None:
                await asyncio.sleep(POLL_S)
            else:
                group.create_task(_make(store, claim, chunk_s, fragment))


async def _make(store: JobStore, claim: Claim, chunk_s: float, fragment: bytes) -> None:
    """Chunks of one job, at even times: jobs that are claimed together do not go in step."""
    loop = asyncio.get_running_loop()
    due = loop.time() + chunk_s * (1 + random.random())
    checkpoint = bytes(CHECKPOINT_BYTES)
    for index in range(claim.job.chunks_total):
        await _durably(lambda index=index: store.begin_chunk(claim.lease, index, 0))  # type: ignore[misc]
        await asyncio.sleep(max(due - loop.time(), 0.0))
        due += chunk_s
        record = ChunkRecord(
            index=index,
            num_frames=33,
            start_s=index * 1.375,
            duration_s=1.375,
            size_bytes=len(fragment),
            stage_s={"denoise": chunk_s},
        )
        await _durably(
            lambda record=record: store.append_chunk(  # type: ignore[misc]
                claim.lease, record, fragment, init_segment=b"init", checkpoint=checkpoint
            )
        )
    await _durably(lambda: store.begin_publish(claim.lease))
    await _durably(lambda: store.succeed(claim.lease, artifact="none.mp4", video_bytes=0))


async def _durably(call: Callable[[], Awaitable[Value]]) -> Value:
    """Repeats a call that found no free connection in time, as workers do."""
    while True:
        try:
            return await call()
        except StoreUnavailable:
            await asyncio.sleep(POLL_S)


if __name__ == "__main__":
    settings = ServiceConfig.model_validate_json(sys.stdin.read())
    asyncio.run(work(settings, float(sys.argv[1]), int(sys.argv[2])))
