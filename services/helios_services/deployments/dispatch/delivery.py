"""Decodes, encodes and appends chunks, one at a time, while the next one is denoised."""

import asyncio
import time
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

from opentelemetry.trace import Span

from helios_engine.request import FRAMES_PER_CHUNK, GenerationRequest
from helios_services.deployments.dispatch.attempt import Attempt
from helios_services.deployments.dispatch.stages import Call, Denoised, Encoded
from helios_services.jobs.records import ChunkRecord
from helios_services.tasks import cancelled
from helios_services.telemetry.metrics import ChunkTiming


class Delivery:
    """At most one chunk on its way from the denoiser into the store."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._current: asyncio.Task[None] | None = None
        self.last_chunk_at = time.perf_counter()
        """When the last chunk was appended, or the attempt started (time.perf_counter())."""

    def start(self, chunk: Span, *args: Any) -> None:
        """Begins with a chunk; the one before must be settled. Ends the span. args: as of `_deliver`."""
        self._current = asyncio.create_task(self._ending(chunk, *args))

    async def settled(self) -> None:
        """Waits for the chunk on its way, if there is one. Raises what became of it."""
        if self._current is not None:
            await self._current

    async def cancel(self) -> None:
        """Drops the chunk on its way, if there is one."""
        if self._current is not None:
            await cancelled(self._current)

    async def _ending(self, chunk: Span, *args: Any) -> None:
        try:
            await self._deliver(*args)
        finally:
            chunk.end()

    async def _deliver(
        self, index: int, request: GenerationRequest, call: Call, denoised: Denoised, stage_s: dict[str, float]
    ) -> None:
        """stage_s: seconds by stage, spent before the chunk was denoised."""
        # by reference at first; a repeated call carries the latents themselves: the reference may be what was lost
        sources: Iterator[Call | Denoised] = chain([call], repeat(denoised))
        encoded = await self._attempt.calls.call("decode", lambda: self._attempt.stages.decode(next(sources), request))
        duration_s = FRAMES_PER_CHUNK / request.fps
        record = ChunkRecord(
            index=index,
            num_frames=encoded.num_frames,
            start_s=index * duration_s,
            duration_s=duration_s,
            size_bytes=len(encoded.fragment),
            stage_s=stage_s | {"denoise": denoised.seconds, "decode": encoded.decode_s, "encode": encoded.encode_s},
        )
        checkpoint = denoised.state.to_bytes()
        await self._attempt.durably(
            lambda: self._attempt.store.append_chunk(
                self._attempt.lease,
                record,
                encoded.fragment,
                init_segment=encoded.init_segment,
                checkpoint=checkpoint,
            )
        )
        self._record(record, denoised, encoded)

    def _record(self, chunk: ChunkRecord, denoised: Denoised, encoded: Encoded) -> None:
        """Metrics and log of a chunk that has been appended."""
        metrics, now = self._attempt.metrics, time.perf_counter()
        metrics.record_chunk(
            ChunkTiming(
                stage_s=chunk.stage_s,
                interval_s=now - self.last_chunk_at,
                duration_s=chunk.duration_s,
                num_frames=chunk.num_frames,
                objective_s=self._attempt.config.dispatcher.chunk_objective_s,
            )
        )
        self.last_chunk_at = now
        if chunk.index == 0:
            metrics.first_chunk.observe(max(time.time() - self._attempt.job.created_s, 0.0))
        for stage, memory in (("denoise", denoised.memory_bytes), ("decode", encoded.memory_bytes)):
            metrics.memory.labels(stage).set(memory)
        times = {f"{stage}_s": round(seconds, 4) for stage, seconds in chunk.stage_s.items()}
        self._attempt.log.info("chunk_done", chunk=chunk.index, **times)
