"""One attempt at a job, with the real store and stages made of events: order, overlap, repetition, resumption."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import torch
from redis.asyncio import Redis

from helios_engine.prompts import ScheduledPrompt
from helios_engine.request import GenerationRequest
from helios_engine.state import DenoiseState
from helios_services.config import JobsConfig, RedisConfig, ServiceConfig
from helios_services.deployments.job_run import JobRun
from helios_services.deployments.stages import Conditioned, Denoised, Embedded, Encoded
from helios_services.deployments.turns import Turn
from helios_services.jobs.errors import ChunkGone, SessionEnded
from helios_services.jobs.records import Claim, Control, JobFailure, JobSpec, Media
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from helios_services.media.artifacts import ArtifactStore
from helios_services.media.encoder import EncoderSettings, encode_chunk
from helios_services.telemetry.metrics import WorkerMetrics

CHUNKS = 3


class Died(Exception):
    """A replica died."""


class NotThere(Exception):
    """No replica yet."""


class FakeStages:
    """Stages that log what is called; `before` may wait or raise, by stage and chunk."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.prompts: list[str] = []
        self.seen: list[tuple[float, int | None]] = []
        self.refusal: JobFailure | None = None
        self.replicas = 1
        self.asked: list[str] = []
        self.turns: list[Turn] = []
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}

    async def _step(self, name: str) -> None:
        self.log.append(f"{name} starts")
        if name in self.before:
            await self.before[name]()
        self.log.append(f"{name} ends")

    async def embed(self, prompt: str) -> Embedded:
        self.prompts.append(prompt)
        return Embedded(tokens=torch.full((2, 4), float(len(prompt))), seconds=0.5)

    async def condition(self, request: GenerationRequest, media: Media) -> Conditioned | JobFailure:
        await self._step(f"condition {media.id}")
        if self.refusal is not None:
            return self.refusal
        state = DenoiseState.initial(request)
        return Conditioned(state=replace(state, anchor=torch.ones(1, 16, 1, 8, 8)), seconds=0.125)

    def denoise(
        self, previous: Any, prompt_tokens: torch.Tensor, negative_tokens: torch.Tensor | None, turn: Turn
    ) -> Any:
        self.turns.append(turn)

        async def call() -> Denoised:
            state = previous if isinstance(previous, DenoiseState) else previous.result().state
            self.seen.append((float(prompt_tokens[0, 0]), None if negative_tokens is None else len(negative_tokens)))
            await self._step(f"denoise {state.chunks_made}")
            generator = state.generator()
            latents = torch.randn(1, 16, 9, 8, 8, generator=generator)
            return Denoised(latents=latents, state=state.advanced(latents, generator), seconds=0.25, memory_bytes=7)

        return asyncio.ensure_future(call())

    async def decode(self, denoised: Any, request: GenerationRequest) -> Encoded:
        value = denoised if isinstance(denoised, Denoised) else denoised.result()
        index = value.state.chunks_made - 1
        await self._step(f"decode {index}")
        shade = int(value.latents.flatten()[0].abs() * 50) % 200
        frames = np.full((33, 64, 64, 3), shade, dtype=np.uint8)
        chunk = encode_chunk(frames, index=index, fps=request.fps, settings=EncoderSettings())
        return Encoded(
            init_segment=chunk.init_segment,
            fragment=chunk.fragment,
            num_frames=33,
            decode_s=0.1,
            encode_s=0.05,
            memory_bytes=9,
        )

    def lost(self, error: BaseException) -> bool:
        return isinstance(error, Died)

    def unavailable(self, error: BaseException) -> bool:
        return isinstance(error, NotThere)

    async def absent(self, stage: str) -> bool:
        self.asked.append(stage)
        return self.replicas == 0


class Bench:
    """A store with one submitted job, and runs of it."""

    def __init__(self, redis: RedisConfig, folder: Path) -> None:
        jobs = JobsConfig(max_attempts=3, lease_s=30, live_window_chunks=2, session_grace_s=1.5)
        self.config = ServiceConfig(state_dir=folder, redis=redis, jobs=jobs)
        self.store = JobStore.connect(redis, self.config.jobs)
        self.artifacts = ArtifactStore(self.config.artifacts)
        self.metrics = WorkerMetrics()
        self.stages = FakeStages()

    def impatient(self, *, start_timeout_s: float) -> None:
        """Calls of the denoiser are given up on at once."""
        denoiser = self.config.denoiser.model_copy(
            update={"request_timeout_s": 0.05, "start_timeout_s": start_timeout_s}
        )
        self.config = self.config.model_copy(update={"denoiser": denoiser})

    async def submit(self, *, chunks: int = CHUNKS, options: Any = None, **params: Any) -> str:
        job_id = uuid4().hex
        values = {
            "prompt": "a lake",
            "height": 64,
            "width": 64,
            "num_frames": 33 * CHUNKS,
            "pyramid_steps": [1, 1, 1],
            "fps": 24,
        }
        spec = JobSpec(model="m", params=values | params, chunks_total=chunks, **options or {})
        await self.store.submit(job_id, spec)
        return job_id

    async def run(self) -> JobRun:
        claim = await self.store.claim("m", "w", uuid4().hex)
        assert claim is not None
        return self.run_of(claim)

    def run_of(self, claim: Claim) -> JobRun:
        return JobRun(
            claim,
            stages=self.stages,
            store=self.store,
            artifacts=self.artifacts,
            metrics=self.metrics,
            config=self.config,
        )

    async def checkpoint(self, job_id: str) -> bytes:
        async with Redis.from_url(self.config.redis.url) as client:
            data = await client.get(f"helios:{{{self.config.redis.namespace}}}:checkpoint:{job_id}")
        assert isinstance(data, bytes)
        return data

    async def fragments(self, job_id: str) -> list[bytes]:
        return [await self.store.fragment(job_id, index) for index in range(CHUNKS)]


@pytest.fixture
async def bench(redis: RedisConfig, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(redis, tmp_path)
    yield bench
    await bench.store.close()


async def test_a_job_becomes_a_video(bench: Bench) -> None:
    job_id = await bench.submit()
    await (await bench.run()).run()
    job = await bench.store.get(job_id)
    assert (job.state, job.chunks_done, job.artifact) == (JobState.SUCCEEDED, CHUNKS, f"{job_id}.mp4")
    assert bench.artifacts.size(job.artifact) == job.video_bytes > 0
    records = await bench.store.chunk_records(job)
    assert [set(record.stage_s) for record in records] == [
        {"queue", "text", "denoise", "decode", "encode"},
        {"denoise", "decode", "encode"},
        {"denoise", "decode", "encode"},
    ]
    assert [record.start_s for record in records] == [0.0, 1.375, 2.75]
    value = bench.metrics.registry.get_sample_value
    assert value("helios_generated_frames_total") == 99
    assert value("helios_chunk_stage_seconds_count", {"stage": "decode"}) == 3
    assert await bench.store.ended() == {JobState.SUCCEEDED: 1}
    assert value("helios_gpu_memory_bytes", {"stage": "decode"}) == 9


async def test_the_next_chunk_is_denoised_while_one_is_decoded_and_no_further(bench: Bench) -> None:
    await bench.submit()
    denoised_1, decode_0 = asyncio.Event(), asyncio.Event()
    stages = bench.stages

    async def hold_decode() -> None:
        await denoised_1.wait()
        await decode_0.wait()

    async def tell() -> None:
        denoised_1.set()

    stages.before |= {"decode 0": hold_decode, "denoise 1": tell}
    task = asyncio.create_task((await bench.run()).run())
    await asyncio.wait_for(denoised_1.wait(), 10)
    for _ in range(20):
        await asyncio.sleep(0)
    assert "decode 0 starts" in stages.log
    assert "decode 0 ends" not in stages.log
    assert "denoise 2 starts" not in stages.log  # one chunk ahead, not more
    decode_0.set()
    await asyncio.wait_for(task, 20)
    assert [line for line in stages.log if line.startswith("decode") and line.endswith("ends")] == [
        f"decode {index} ends" for index in range(CHUNKS)
    ]


@pytest.mark.parametrize("stage", ["denoise 1", "decode 1"])
@pytest.mark.parametrize("error", [Died, NotThere])
async def test_a_call_whose_replica_dies_is_repeated_with_the_same_bits(
    bench: Bench, stage: str, error: type[Exception]
) -> None:
    undisturbed = await bench.submit(seed=3)
    await (await bench.run()).run()
    failures = [error(), error()]

    async def fail_twice() -> None:
        if failures:
            raise failures.pop()

    bench.stages.before[stage] = fail_twice
    disturbed = await bench.submit(seed=3)
    await (await bench.run()).run()
    assert await bench.fragments(disturbed) == await bench.fragments(undisturbed)
    assert (
        bench.metrics.registry.get_sample_value("helios_stage_retries_total", {"stage": stage.partition(" ")[0]}) == 2
    )


@pytest.mark.parametrize(("error", "reason"), [(Died, "WORKER_LOST"), (ValueError("secret path"), "GENERATION_FAILED")])
async def test_a_hopeless_stage_fails_the_job_without_internals(bench: Bench, error: Any, reason: str) -> None:
    async def always() -> None:
        raise error

    bench.stages.before["denoise 1"] = always
    job_id = await bench.submit()
    await (await bench.run()).run()
    job = await bench.store.get(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.reason == reason
    assert "secret" not in job.error.message
    assert job.chunks_done == 1


async def test_a_stored_request_that_is_invalid_fails_by_name(bench: Bench) -> None:
    job_id = await bench.submit(height=65)
    await (await bench.run()).run()
    error = (await bench.store.get(job_id)).error
    assert error is not None
    assert (error.reason, "height: 65" in error.message) == ("INVALID_REQUEST", True)


async def test_drain_before_the_first_chunk_gives_the_job_back(bench: Bench) -> None:
    job_id = await bench.submit()
    run = await bench.run()
    run.stop_after_chunk()
    await run.run()
    assert (await bench.store.get(job_id)).state is JobState.QUEUED


async def test_drain_gives_the_job_back_and_another_run_goes_on_with_the_same_bits(bench: Bench) -> None:
    undisturbed = await bench.submit(seed=3)
    await (await bench.run()).run()
    prompts = len(bench.stages.prompts)
    job_id = await bench.submit(seed=3)
    first = await bench.run()

    async def stop() -> None:
        first.stop_after_chunk()

    bench.stages.before["denoise 0"] = stop
    await first.run()
    job = await bench.store.get(job_id)
    assert (job.state, job.chunks_done, job.attempts) == (JobState.QUEUED, 1, 0)
    bench.stages.before.clear()
    await (await bench.run()).run()
    assert (await bench.store.get(job_id)).state is JobState.SUCCEEDED
    assert len(bench.stages.prompts) == prompts + 1  # resumed with the stored embedding
    assert await bench.fragments(job_id) == await bench.fragments(undisturbed)


async def test_a_stage_that_is_gone_while_draining_gives_the_job_back_at_once(bench: Bench) -> None:
    job_id = await bench.submit()
    run = await bench.run()

    async def gone() -> None:
        run.stop_after_chunk()
        raise NotThere

    bench.stages.before["decode 1"] = gone
    await run.run()
    job = await bench.store.get(job_id)
    assert (job.state, job.chunks_done) == (JobState.QUEUED, 1)


async def test_a_cancelled_job_is_dropped_after_the_chunk_in_progress(bench: Bench) -> None:
    job_id = await bench.submit()

    async def cancel() -> None:
        await bench.store.cancel(job_id)

    bench.stages.before["decode 0"] = cancel
    await (await bench.run()).run()
    assert (await bench.store.get(job_id)).state is JobState.CANCELLED
    assert "denoise 2 starts" not in bench.stages.log
    assert await bench.store.chunk_records(await bench.store.get(job_id)) == []


async def test_publication_is_taken_up_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = await bench.submit()
    publish, failures = ArtifactStore.publish, [OSError("full"), OSError("full")]

    def flaky(self: ArtifactStore, file: Path, name: str) -> None:
        if failures:
            raise failures.pop()
        publish(self, file, name)

    monkeypatch.setattr(ArtifactStore, "publish", flaky)
    await (await bench.run()).run()
    assert (await bench.store.get(job_id)).state is JobState.SUCCEEDED
    assert bench.artifacts.size(f"{job_id}.mp4") > 0


async def test_prompts_take_over_at_their_chunks_and_survive_a_resumption(bench: Bench) -> None:
    schedule = [{"chunk_index": 2, "prompt": "five5", "interpolation_chunks": 0}]
    job_id = await bench.submit(prompt_schedule=schedule)
    first = await bench.run()

    async def update() -> None:
        bench.stages.before.clear()
        first.stop_after_chunk()
        update = ScheduledPrompt(chunk_index=0, prompt="thirteen13131", interpolation_chunks=0)
        assert await bench.store.update_prompt(job_id, update, "n") == 1  # chunk 0 has started

    bench.stages.before["denoise 0"] = update
    await first.run()
    await (await bench.run()).run()
    assert (await bench.store.get(job_id)).state is JobState.SUCCEEDED
    assert [length for length, _ in bench.stages.seen] == [6.0, 13.0, 5.0]
    assert bench.stages.prompts == ["a lake", "thirteen13131", "five5"]


async def test_a_blend_of_prompts_goes_from_one_to_the_other(bench: Bench) -> None:
    schedule = [{"chunk_index": 0, "prompt": "ten4567890", "interpolation_chunks": 3}]
    await bench.submit(prompt_schedule=schedule)
    await (await bench.run()).run()
    assert [length for length, _ in bench.stages.seen] == [6.0, 8.0, 10.0]


async def test_guidance_embeds_the_negative_prompt_once(bench: Bench) -> None:
    await bench.submit(guidance_scale=5.0, negative_prompt="blur")
    await (await bench.run()).run()
    assert bench.stages.prompts == ["a lake", "blur"]
    assert bench.stages.seen == [(6.0, 2)] * CHUNKS


async def test_a_job_that_starts_from_an_upload(bench: Bench) -> None:
    media = Media(id="m1", name="m1.png", content_type="image/png", size_bytes=3, expire_s=0.0)
    await bench.store.add_media(media, ttl_s=60, max_files=5)
    job_id = await bench.submit(options={"image_id": "m1"})
    await (await bench.run()).run()
    job = await bench.store.get(job_id)
    assert job.state is JobState.SUCCEEDED
    assert (await bench.store.chunk_records(job))[0].stage_s["condition"] == 0.125
    bench.stages.refusal = JobFailure(reason="MEDIA_UNREADABLE", message="image: cut off")
    refused = await bench.submit(options={"image_id": "m1"})
    await (await bench.run()).run()
    assert (await bench.store.get(refused)).error == bench.stages.refusal


async def test_a_continued_job_is_one_longer_job(bench: Bench) -> None:
    first = await bench.submit(seed=3)
    await (await bench.run()).run()
    second = await bench.submit(seed=9, options={"continue_from": first})
    await (await bench.run()).run()
    whole = await bench.submit(seed=3, chunks=2 * CHUNKS, num_frames=66 * CHUNKS)
    await (await bench.run()).run()
    states = [
        DenoiseState.from_bytes(claimed) for claimed in [await bench.checkpoint(second), await bench.checkpoint(whole)]
    ]
    assert [state.chunks_made for state in states] == [CHUNKS, 2 * CHUNKS]
    for name in ("history", "anchor", "rng_state", "chunk_index"):
        one, other = (getattr(state, name) for state in states)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, name


async def test_a_job_that_continues_another_size_fails_by_name(bench: Bench) -> None:
    first = await bench.submit()
    await (await bench.run()).run()
    second = await bench.submit(width=128, options={"continue_from": first})
    await (await bench.run()).run()
    error = (await bench.store.get(second)).error
    assert error is not None
    assert "width: 128 is not allowed; allowed: 64" in error.message


async def test_pause_holds_the_next_chunk_and_stop_ends_the_video(bench: Bench) -> None:
    job_id = await bench.submit(chunks=0)

    async def pause() -> None:
        await bench.store.control(job_id, Control.PAUSE)

    bench.stages.before["denoise 1"] = pause
    task = asyncio.create_task((await bench.run()).run())
    while (await bench.store.get(job_id)).chunks_done < 2:  # noqa: ASYNC110 - the store has no event for it
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.6)  # two polls
    assert "denoise 2 starts" not in bench.stages.log
    assert (await bench.store.get(job_id)).paused
    await bench.store.control(job_id, Control.STOP)
    await asyncio.wait_for(task, 10)
    job = await bench.store.get(job_id)
    assert (job.state, job.chunks_total, job.chunks_done, job.paused) == (JobState.SUCCEEDED, 2, 2, False)
    assert bench.artifacts.size(job.artifact) > 0


async def test_an_open_ended_job_keeps_its_newest_chunks_only(bench: Bench) -> None:
    job_id = await bench.submit(chunks=0)

    async def stop() -> None:
        await bench.store.control(job_id, Control.STOP)

    bench.stages.before["denoise 6"] = stop
    await (await bench.run()).run()
    job = await bench.store.get(job_id)
    assert (job.state, job.chunks_done, job.first_chunk) == (JobState.SUCCEEDED, 7, 5)
    assert (job.artifact, job.video_bytes) == ("", 0)
    assert [record.index for record in await bench.store.chunk_records(job, 5)] == [5, 6]
    assert len(await bench.store.fragment(job_id, 5)) > 0
    with pytest.raises(ChunkGone):
        await bench.store.fragment(job_id, 4)


async def test_a_session_without_its_client_is_stopped(bench: Bench) -> None:
    abandoned = await bench.submit(chunks=0, options={"session": True})
    await asyncio.sleep(2.0)  # longer than the grace
    await (await bench.run()).run()
    assert (await bench.store.get(abandoned)).state is JobState.CANCELLED  # nothing was made
    kept = await bench.submit(chunks=0, options={"session": True})
    task = asyncio.create_task((await bench.run()).run())
    for _ in range(12):
        await asyncio.sleep(0.2)
        await bench.store.keep_session(kept)
    assert (await bench.store.get(kept)).state is JobState.RUNNING
    await asyncio.wait_for(task, 10)
    assert (await bench.store.get(kept)).state is JobState.SUCCEEDED
    with pytest.raises(SessionEnded):
        await bench.store.keep_session(kept)


async def test_waiting_for_a_stage_that_is_scaled_to_zero_is_no_loss(bench: Bench) -> None:
    """More waits than losses are allowed, and then the replica comes."""
    bench.impatient(start_timeout_s=600)
    bench.stages.replicas, calls = 0, 0

    async def come_late() -> None:
        nonlocal calls
        calls += 1
        if calls > bench.config.jobs.max_attempts + 1:
            bench.stages.replicas = 1
            bench.stages.before.clear()
            return
        await asyncio.Event().wait()

    bench.stages.before["denoise 0"] = come_late
    job_id = await bench.submit()
    await (await bench.run()).run()
    assert (await bench.store.get(job_id)).state is JobState.SUCCEEDED
    assert bench.stages.asked == ["denoise"] * (bench.config.jobs.max_attempts + 1)


@pytest.mark.parametrize(("replicas", "start_timeout_s"), [(0, 0.001), (1, 600)])
async def test_a_stage_that_never_comes_or_never_answers_fails_the_job(
    bench: Bench, replicas: int, start_timeout_s: float
) -> None:
    bench.impatient(start_timeout_s=start_timeout_s)
    bench.stages.replicas = replicas
    bench.stages.before["denoise 0"] = asyncio.Event().wait  # type: ignore[assignment]
    job_id = await bench.submit()
    await (await bench.run()).run()
    error = (await bench.store.get(job_id)).error
    assert error is not None
    assert error.reason == "WORKER_LOST"
