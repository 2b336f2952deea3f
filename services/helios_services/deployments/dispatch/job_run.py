"""Drives one claimed job to its end: text, chunks, publication. Knows the stages and the store, not Ray."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeVar

import structlog
from opentelemetry.trace import Span
from redis.exceptions import RedisError

from helios_engine.errors import InvalidField
from helios_engine.request import FRAMES_PER_CHUNK, GenerationRequest
from helios_engine.state import DenoiseState
from helios_services.config import ServiceConfig
from helios_services.deployments.dispatch.prompt_book import PromptBook, prompt_key
from helios_services.deployments.dispatch.stage_calls import GivenBack, JobFailed, Retry, StageCalls
from helios_services.deployments.dispatch.stages import Call, Denoised, Stages
from helios_services.deployments.dispatch.turns import Expired, Turn
from helios_services.jobs.errors import InvalidTransition, JobNotFound, LeaseLost, MediaNotFound
from helios_services.jobs.records import ASIDE, ChunkRecord, Claim, JobFailure, Priority, Verdict
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from helios_services.media.artifacts import ArtifactStore
from helios_services.media.remux import remux
from helios_services.tasks import cancelled
from helios_services.telemetry import tracing
from helios_services.telemetry.metrics import ChunkTiming, WorkerMetrics

log = structlog.get_logger(__name__)
Value = TypeVar("Value")
RANKS = {priority: rank for rank, priority in enumerate(Priority)}
WITHDRAWALS: set["asyncio.Task[None]"] = set()
"""In progress; asyncio itself keeps no task alive."""
AGAIN = Retry(tries=None)
"""How the store and the artifact folder are called again."""


class GivenUp(Exception):
    """The attempt ends early: another job is more urgent, or the job waits for its client; the store has it again."""


class NothingWanted(Exception):
    """The job was stopped before its first chunk."""


class JobRun:
    """One attempt at one job. Everything it needs to go on elsewhere is in the store after each chunk."""

    def __init__(
        self,
        claim: Claim,
        *,
        stages: Stages,
        store: JobStore,
        artifacts: ArtifactStore,
        metrics: WorkerMetrics,
        config: ServiceConfig,
    ) -> None:
        self._claim, self._lease, self._job = claim, claim.lease, claim.job
        self._stages, self._store, self._artifacts = stages, store, artifacts
        self._calls = StageCalls(stages, config=config, metrics=metrics, stopping=lambda: self._stopping)
        self._metrics, self._config = metrics, config
        self._stopping = False
        self._expires_s: float | None = None
        self._request: GenerationRequest
        self._prompts: PromptBook
        self._stage_s = {"queue": claim.queue_wait_s}
        self._last_chunk_at = time.perf_counter()
        self._log = log.bind(job_id=claim.job.id)

    @property
    def last_progress(self) -> float:
        """When the last chunk was appended, or the attempt started (time.perf_counter())."""
        return self._last_chunk_at

    def stop_after_chunk(self) -> None:
        """Gives the job back to the queue after the chunk in progress."""
        self._stopping = True

    async def run(self) -> None:
        """Runs until the job has ended, has been given back, or belongs to someone else."""
        context, waited_s = tracing.remote(self._job.trace), self._claim.queue_wait_s
        tracing.start("queue", context, start_s=time.time() - waited_s, job_id=self._job.id).end()
        with tracing.span("job", context, job_id=self._job.id, attempt=self._job.attempts):
            await self._run()

    async def _run(self) -> None:
        self._log.info("job_started", attempt=self._job.attempts, first_chunk=self._job.chunks_done)
        self._metrics.queue_wait.observe(self._claim.queue_wait_s)
        try:
            self._request = self._stored_request()
            self._prompts = PromptBook(self._job, self._request.prompt_schedule, self._claim.prompt_embeds)
            if await self._generate():
                with tracing.span("publish"):
                    await self._publish()
            else:
                await self._release()
        except GivenBack:
            await self._release()
        except GivenUp:
            self._log.info("job_stood_aside")
        except NothingWanted:
            await self._cancel()
        except Expired:
            await self._durably(self._store.sweep)  # which ends the job
        except LeaseLost:
            self._log.info("job_taken_away")
        except JobFailed as error:
            await self._fail(error.failure)

    async def _release(self) -> None:
        with contextlib.suppress(LeaseLost):
            await self._durably(lambda: self._store.release(self._lease))
            self._log.info("job_released")

    async def _cancel(self) -> None:
        with contextlib.suppress(JobNotFound, InvalidTransition):
            await self._durably(lambda: self._store.cancel(self._job.id))
            self._log.info("job_abandoned")

    def _stored_request(self) -> GenerationRequest:
        try:
            return GenerationRequest.from_dict(self._job.spec.params)
        except (InvalidField, TypeError, KeyError) as error:  # stored by a gateway of another version
            raise JobFailed("INVALID_REQUEST", str(error)) from None

    async def _generate(self) -> bool:
        """Makes the missing chunks; False when it stopped before the last. Chunk k is decoded while k+1 is denoised."""
        previous: Call | None = None
        delivery: asyncio.Task[None] | None = None
        made, done = self._job.chunks_done, self._complete(self._job.chunks_done)
        try:
            if not done:
                state = await self._first_state()
            while not done and not self._stopping:
                verdict = await self._begin(made)
                if verdict in ASIDE:
                    await self._delivered(delivery)
                    if await self._stood_aside(verdict):
                        self._metrics.set_aside.labels(verdict.value).inc()
                        raise GivenUp
                    continue
                if verdict is Verdict.STOPPED and made == 0:
                    raise NothingWanted
                if verdict is Verdict.STOPPED:
                    self._job, done = replace(self._job, chunks_total=made), True
                    break
                chunk = tracing.start("chunk", chunk=made)
                with tracing.entered(chunk), tracing.ended_on_error(chunk):
                    call, denoised = await self._denoise(previous, state, *await self._tokens(made))
                    await self._delivered(delivery)
                    stage_s, self._stage_s = self._stage_s, {}
                    delivery = asyncio.create_task(self._delivering(chunk, made, call, denoised, stage_s))
                previous, state, made = call, denoised.state, made + 1
                done = self._complete(made)
            await self._delivered(delivery)
            return done
        except GivenBack:
            await self._delivered(delivery)  # the chunk before the one that could not be made is the client's
            raise
        except JobFailed:
            with contextlib.suppress(GivenBack):  # the failure is final, whatever becomes of the chunk before
                await self._delivered(delivery)
            raise
        finally:
            if delivery is not None:
                await cancelled(delivery)

    def _complete(self, made: int) -> bool:
        return made == self._job.chunks_total > 0

    @staticmethod
    async def _delivered(delivery: asyncio.Task[None] | None) -> None:
        if delivery is not None:
            await delivery

    async def _begin(self, index: int) -> Verdict:
        start = await self._durably(lambda: self._store.begin_chunk(self._lease, index, self._prompts.updates))
        self._prompts.add(start.prompt_updates)
        self._expires_s = None if start.left_s is None else time.monotonic() + start.left_s
        return start.verdict

    async def _stood_aside(self, verdict: Verdict) -> bool:
        """Gives the job up to its client or to another job; False if that has become needless meanwhile."""
        give_up = self._store.give_way if verdict is Verdict.OUTRANKED else self._store.park
        return await self._durably(lambda: give_up(self._lease))

    async def _first_state(self) -> DenoiseState:
        """Where to go on: after the last chunk, after the last chunk of the job that is continued, or at the start."""
        spec = self._job.spec
        try:
            state = None if self._claim.checkpoint is None else DenoiseState.from_bytes(self._claim.checkpoint)
        except ValueError as error:  # stored by a worker of another version
            raise JobFailed("INVALID_REQUEST", str(error)) from None
        if state is not None and self._job.chunks_done:
            return state
        if state is not None:
            try:
                return state.continued(self._request)
            except ValueError as error:
                raise JobFailed("INVALID_REQUEST", str(error)) from None
        if spec.continue_from:
            raise JobFailed("NOT_CONTINUABLE", f"the state of job {spec.continue_from!r} is not kept")
        if spec.media_ids:
            return await self._conditioned_state(spec.media_ids[0])
        return DenoiseState.initial(self._request)

    async def _conditioned_state(self, media_id: str) -> DenoiseState:
        try:
            media = await self._durably(lambda: self._store.media(media_id))
        except MediaNotFound as error:
            raise JobFailed("MEDIA_GONE", str(error)) from None
        conditioned = await self._calls.call("condition", lambda: self._stages.condition(self._request, media))
        if isinstance(conditioned, JobFailure):
            raise JobFailed(conditioned.reason, conditioned.message)
        self._stage_s["condition"] = conditioned.seconds
        return conditioned.state

    async def _tokens(self, index: int) -> tuple[Any, Any]:
        """Embeddings of the chunk's prompt and, with guidance, of the negative one."""
        negative = self._request.negative_prompt if self._request.guided else None
        tokens = await self._prompts.tokens(index, self._embed, self._save_embeds, negative)
        if negative is None:
            return tokens, None
        keep = {prompt_key(negative), *self._prompts.keys}
        return tokens, await self._prompts.one(negative, self._embed, self._save_embeds, keep)

    async def _embed(self, prompt: str) -> Any:
        embedded = await self._calls.call("text", lambda: self._stages.embed(prompt))
        self._stage_s["text"] = self._stage_s.get("text", 0.0) + embedded.seconds
        return embedded.tokens

    async def _save_embeds(self, key: str, data: bytes, keep: set[str]) -> None:
        await self._durably(lambda: self._store.save_prompt_embeds(self._lease, key, data, keep=keep))

    async def _denoise(
        self, previous: Call | None, state: DenoiseState, tokens: Any, negative: Any
    ) -> tuple[Call, Denoised]:
        """By reference at first; a repeated call carries the state itself, for the reference may be what was lost."""
        call: Call | None = None

        async def attempt() -> Denoised:
            nonlocal call
            source = state if call is not None or previous is None else previous
            call = self._stages.denoise(source, tokens, negative, self._turn())
            denoised: Denoised = await call
            return denoised

        denoised = await self._calls.call("denoise", attempt)
        assert call is not None
        return call, denoised

    def _turn(self) -> Turn:
        left_s = None if self._expires_s is None else max(self._expires_s - time.monotonic(), 0.0)
        return Turn(rank=RANKS[self._job.spec.priority], left_s=left_s)

    async def _delivering(self, chunk: Span, *args: Any) -> None:
        try:
            await self._deliver(*args)
        finally:
            chunk.end()

    async def _deliver(self, index: int, call: Call, denoised: Denoised, stage_s: dict[str, float]) -> None:
        """Decodes, encodes and appends a chunk. stage_s: what was spent before it was denoised."""
        request = self._request
        sources: Iterator[Call | Denoised] = chain([call], repeat(denoised))  # by reference at first, as in _denoise
        encoded = await self._calls.call("decode", lambda: self._stages.decode(next(sources), request))
        stage_s = stage_s | {
            "denoise": denoised.seconds,
            "decode": encoded.decode_s,
            "encode": encoded.encode_s,
        }
        duration_s = FRAMES_PER_CHUNK / request.fps
        record = ChunkRecord(
            index=index,
            num_frames=encoded.num_frames,
            start_s=index * duration_s,
            duration_s=duration_s,
            size_bytes=len(encoded.fragment),
            stage_s=stage_s,
        )
        checkpoint = denoised.state.to_bytes()
        await self._durably(
            lambda: self._store.append_chunk(
                self._lease,
                record,
                encoded.fragment,
                init_segment=encoded.init_segment,
                checkpoint=checkpoint,
            )
        )
        now = time.perf_counter()
        self._metrics.record_chunk(
            ChunkTiming(
                stage_s=stage_s,
                interval_s=now - self._last_chunk_at,
                duration_s=duration_s,
                num_frames=encoded.num_frames,
            )
        )
        self._last_chunk_at = now
        if index == 0:
            self._metrics.first_chunk.observe(max(time.time() - self._job.created_s, 0.0))
        for stage, memory in (("denoise", denoised.memory_bytes), ("decode", encoded.memory_bytes)):
            self._metrics.memory.labels(stage).set(memory)
        self._log.info("chunk_done", chunk=index, **{f"{stage}_s": round(s, 4) for stage, s in stage_s.items()})

    async def _publish(self) -> None:
        await self._durably(lambda: self._store.begin_publish(self._lease))
        if (await self._durably(lambda: self._store.get(self._job.id))).first_chunk > 0:
            # an open-ended job whose first chunks are gone: it was there to be watched
            await self._durably(lambda: self._store.succeed(self._lease, artifact="", video_bytes=0))
            self._log.info("job_succeeded", video_bytes=0)
            return
        name = f"{self._job.id}.mp4"
        loop = asyncio.get_running_loop()
        for attempt in range(1, self._config.dispatcher.publish_attempts + 1):
            try:
                size = await self._uploaded(name, loop)
                break
            except OSError as error:
                self._log.warning("publish_failed", attempt=attempt, error=str(error))
                if attempt == self._config.dispatcher.publish_attempts:
                    raise JobFailed("PUBLISH_FAILED", "the video could not be written to the artifact store") from None
                await asyncio.sleep(AGAIN.wait_s(attempt))
        try:
            await self._durably(lambda: self._store.succeed(self._lease, artifact=name, video_bytes=size))
        except LeaseLost:
            await self._withdraw(name)
            raise
        self._log.info("job_succeeded", video_bytes=size)

    async def _uploaded(self, name: str, loop: asyncio.AbstractEventLoop) -> int:
        """The video's bytes. A thread cannot be stopped: when this is cancelled, the file goes once it is there."""
        upload = asyncio.ensure_future(asyncio.to_thread(self._write_video, name, loop))
        try:
            return await asyncio.shield(upload)
        except asyncio.CancelledError:
            withdrawal = asyncio.create_task(self._withdraw(name, upload))
            WITHDRAWALS.add(withdrawal)
            withdrawal.add_done_callback(WITHDRAWALS.discard)
            raise

    async def _withdraw(self, name: str, upload: "asyncio.Future[int] | None" = None) -> None:
        """Deletes the video, after its upload, of a job that has ended without one."""
        if upload is not None:
            await asyncio.wait({upload})
        with contextlib.suppress(JobNotFound, OSError):
            job = await self._durably(lambda: self._store.get(self._job.id))
            if job.ended_s is not None and job.state is not JobState.SUCCEEDED:
                await asyncio.to_thread(self._artifacts.delete, name)
                self._log.info("video_withdrawn")

    def _write_video(self, name: str, loop: asyncio.AbstractEventLoop) -> int:
        """On a thread: one fragment in memory at a time."""

        def fetch(read: Callable[[], Awaitable[bytes]]) -> bytes:
            return asyncio.run_coroutine_threadsafe(self._durably(read), loop).result()

        def pieces() -> Iterator[bytes]:
            yield fetch(lambda: self._store.init_segment(self._job.id))
            for index in range(self._job.chunks_total):
                yield fetch(lambda index=index: self._store.fragment(self._job.id, index))  # type: ignore[misc]

        with tempfile.TemporaryDirectory(prefix="helios-") as folder:
            file = Path(folder) / name
            size = remux(pieces(), file)
            self._artifacts.publish(file, name)
        return size

    async def _fail(self, failure: JobFailure) -> None:
        self._log.error("job_failed", reason=failure.reason, message=failure.message)
        with contextlib.suppress(LeaseLost):
            await self._durably(lambda: self._store.fail(self._lease, failure))

    async def _durably(self, call: Callable[[], Awaitable[Value]]) -> Value:
        """Repeats a call of the store for as long as Redis cannot be reached; every such call may be repeated."""
        attempt = 0
        while True:
            try:
                return await call()
            except RedisError as error:
                attempt += 1
                if attempt == 1:
                    self._log.warning("redis_unreachable", error=str(error))
                await asyncio.sleep(AGAIN.wait_s(attempt))
