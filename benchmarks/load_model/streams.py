"""Streaming calls: chunks to many readers, and what a stream costs that waits."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from benchmarks.load_model.processes import CpuUse, Processes, stubs
from benchmarks.load_model.unary import PARAMS, summary
from helios.v1 import video_generation_pb2 as pb
from helios_services.tasks import cancelled

SETTLE_S = 3.0


async def fan_out(processes: Processes, readers: int, jobs: int, chunks: int, limit_s: float) -> dict[str, Any]:
    """`readers` streams spread over `jobs` jobs of `chunks` chunks, which the stand-in worker makes.

    A delivery's time is from the moment that the chunk is in the store (by Redis' clock, which is this machine's) to
    that of its last byte at the client. Readers that have not ended after `limit_s` are counted as late.
    """
    channels = processes.channels()
    each = stubs(channels)
    request = pb.SubmitJobRequest(params=PARAMS)
    request.params.num_frames = 33 * chunks
    ids = [(await each[number % len(each)].SubmitJob(request)).id for number in range(jobs)]
    delays: list[float] = []
    received = resumed = 0

    async def read(number: int) -> None:
        nonlocal received, resumed
        wanted = pb.StreamVideoRequest(job_id=ids[number % jobs])
        while wanted.from_chunk < chunks:
            try:
                async for part in each[number % len(each)].StreamVideo(wanted):
                    received += len(part.data)
                    if part.last_part and not part.init_segment:
                        delays.append(time.time() - part.info.ready_time.ToMicroseconds() / 1e6)
                        wanted.from_chunk = part.chunk_index + 1
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                resumed += 1

    start = time.perf_counter()
    with CpuUse(processes) as cpu:
        _, late = await asyncio.wait([asyncio.create_task(read(number)) for number in range(readers)], timeout=limit_s)
    await cancelled(*late)
    elapsed_s = time.perf_counter() - start
    for channel in channels:
        await channel.close()
    return {
        "readers": readers,
        "jobs": jobs,
        "bytes_per_s": received / elapsed_s,
        "chunks_per_s": len(delays) / elapsed_s,
        "resumed": resumed,
        "late": len(late),
        **summary(delays),
        "cores": cpu.shares,
    }


async def idle_streams(processes: Processes, method: str, count: int) -> dict[str, Any]:
    """Memory of the gateways before and with `count` streams of jobs that nobody makes, and what they cost a second."""
    channels = processes.channels()
    each = stubs(channels)
    ids = [(await stub.SubmitJob(pb.SubmitJobRequest(params=PARAMS))).id for stub in each]
    before = _resident(processes)
    opened = [_open(each[number % len(each)], method, ids[number % len(ids)]) for number in range(count)]
    await asyncio.gather(*(_first(stream) for stream in opened if method == "WatchJob"))
    await asyncio.sleep(SETTLE_S)
    after = _resident(processes)
    with CpuUse(processes) as cpu:
        await asyncio.sleep(SETTLE_S)
    for stream in opened:
        stream.cancel()
    for channel in channels:
        await channel.close()
    return {
        "method": method,
        "streams": count,
        "gateway_bytes_before": before,
        "gateway_bytes_with": after,
        "bytes_per_stream": (after - before) / count,
        "cores": cpu.shares,
    }


def _open(stub: Any, method: str, job_id: str) -> Any:
    if method == "WatchJob":
        return stub.WatchJob(pb.WatchJobRequest(job_id=job_id))
    return stub.StreamVideo(pb.StreamVideoRequest(job_id=job_id))


async def _first(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        return


def _resident(processes: Processes) -> int:
    return sum(int(process.memory_info().rss) for process in processes.gateways)
