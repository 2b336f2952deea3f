"""One attempt at a job, with the real store and stages made of events: order, overlap, repetition, resumption."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from helios_engine.prompts import ScheduledPrompt
from helios_engine.sampling.state import DenoiseState
from helios_services.jobs.charge import CHUNK_MS, UPLOAD_CHUNKS, charge_of
from helios_services.jobs.errors import ChunkGone, SessionEnded
from helios_services.jobs.records import NOBODY, Account, Control, JobFailure, Media
from helios_services.jobs.state import JobState
from helios_services.media.artifacts import ArtifactStore
from services.deployments.bench import CHUNKS, Bench, Died, NotThere
from services.jobs.conftest import let_session_lapse
from support.redis_clients import async_client


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
    await asyncio.wait_for(denoised_1.wait(), 60)
    for _ in range(20):
        await asyncio.sleep(0)
    assert "decode 0 starts" in stages.log
    assert "decode 0 ends" not in stages.log
    assert "denoise 2 starts" not in stages.log  # one chunk ahead, not more
    decode_0.set()
    await asyncio.wait_for(task, 60)
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
    failing, tries = asyncio.Event(), 0

    async def always() -> None:
        nonlocal tries
        tries += 1
        if tries == (bench.config.jobs.max_attempts if error is Died else 1):
            failing.set()
        raise error

    async def later() -> None:
        await failing.wait()
        await asyncio.sleep(0.05)

    bench.stages.before = {"denoise 1": always, "decode 0": later}
    job_id = await bench.submit()
    await (await bench.run()).run()
    job = await bench.store.get(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.reason == reason
    assert "secret" not in job.error.message
    assert job.chunks_done == 1  # made before, and delivered all the same


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


@pytest.mark.parametrize("hopeless", [False, True])
async def test_the_chunk_before_a_stage_that_is_gone_while_draining_is_delivered(bench: Bench, hopeless: bool) -> None:
    """Unless its own stage is gone as well: which makes a job that has failed no better."""
    job_id = await bench.submit()
    run, failing = await bench.run(), asyncio.Event()

    async def denoise() -> None:
        run.stop_after_chunk()
        failing.set()
        raise ValueError if hopeless else NotThere

    async def decode() -> None:
        await failing.wait()
        await asyncio.sleep(0.05)
        if hopeless:
            raise NotThere

    bench.stages.before = {"denoise 1": denoise, "decode 0": decode}
    await run.run()
    job = await bench.store.get(job_id)
    assert (job.state, job.chunks_done) == ((JobState.FAILED, 0) if hopeless else (JobState.QUEUED, 1))


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
    await bench.store.reserve_media(media.name, 3, lease_s=60, max_files=5, account=NOBODY)
    await bench.store.add_media(media, ttl_s=60)
    job_id = await bench.submit(options={"image_id": "m1"})
    await (await bench.run()).run()
    job = await bench.store.get(job_id)
    assert job.state is JobState.SUCCEEDED
    assert (await bench.store.chunk_records(job))[0].stage_s["condition"] == 0.125
    bench.stages.refusal = JobFailure(reason="MEDIA_UNREADABLE", message="image: cut off")
    refused = await bench.submit(options={"image_id": "m1"})
    await (await bench.run()).run()
    assert (await bench.store.get(refused)).error == bench.stages.refusal


async def test_an_upload_is_charged_before_it_is_decoded_and_waits_with_its_job(bench: Bench) -> None:
    """The attack: jobs that are cancelled while their clips are decoded, and jobs that are paused and resumed."""
    media = Media(id="m1", name="m1.mp4", content_type="video/mp4", size_bytes=3, expire_s=0.0)
    await bench.store.reserve_media(media.name, 3, lease_s=60, max_files=5, account=NOBODY)
    await bench.store.add_media(media, ttl_s=60)
    account = Account(id="a", video_minutes_per_day=10)
    video = charge_of({"height": 64, "width": 64, "pyramid_steps": [1, 1, 1]}, "video")

    async def charged_ms() -> int:
        async with async_client(bench.config.redis.url) as client:
            keys = [key async for key in client.scan_iter("*video_ms:a:*")]
            return sum([int(await client.get(key) or 0) for key in keys])

    async def cancel() -> None:
        await bench.store.cancel(job_id)

    for _ in range(3):
        paused = await bench.submit(options={"video_id": "m1"}, account=account)
        await bench.store.control(paused, Control.PAUSE)
        await (await bench.run()).run()
        await bench.store.control(paused, Control.RESUME)
        await bench.store.cancel(paused)
    assert "condition m1 starts" not in bench.stages.log
    assert await charged_ms() == 0
    job_id = await bench.submit(options={"video_id": "m1"}, account=account)
    bench.stages.before["condition m1"] = cancel
    run = asyncio.create_task((await bench.run()).run())
    await run
    assert "condition m1 starts" in bench.stages.log
    assert await charged_ms() == video.first_chunk_ms > UPLOAD_CHUNKS["video"] * CHUNK_MS


async def test_a_job_that_makes_more_than_its_account_may_store_fails_by_name(bench: Bench) -> None:
    await bench.limit_output(120_000)
    job_id = await bench.submit(chunks=300, num_frames=300 * 33)
    await (await bench.run()).run()
    job = await bench.store.get(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error.reason, "output_bytes" in job.error.message) == ("OUTPUT_LIMIT", True)
    assert 0 < job.chunks_done < 300
    assert await bench.store.dead_letters() == 0


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
    await (await bench.run()).run()  # ends with the pause: it holds no worker
    paused = await bench.store.get(job_id)
    assert (paused.state, paused.paused, paused.chunks_done) == (JobState.QUEUED, True, 2)
    assert bench.metrics.registry.get_sample_value("helios_jobs_set_aside_total", {"reason": "paused"}) == 1
    assert "denoise 2 starts" not in bench.stages.log
    await bench.store.control(job_id, Control.STOP)
    await (await bench.run()).run()
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
    await bench.keep_chunks(1000)  # of which none is read
    abandoned = await bench.submit(chunks=0, options={"session": True})
    await let_session_lapse(abandoned, bench.config.redis)
    await (await bench.run()).run()
    assert (await bench.store.get(abandoned)).state is JobState.CANCELLED  # nothing was made
    kept = await bench.submit(chunks=0, options={"session": True})
    await let_session_lapse(kept, bench.config.redis)
    await bench.store.keep_session(kept)
    bench.stages.before["denoise 2"] = lambda: let_session_lapse(kept, bench.config.redis)
    await (await bench.run()).run()
    job = await bench.store.get(kept)
    assert (job.state, job.chunks_done) == (JobState.SUCCEEDED, 3)
    with pytest.raises(SessionEnded):
        await bench.store.keep_session(kept)


async def test_waiting_for_a_stage_that_is_scaled_to_zero_is_no_loss(bench: Bench) -> None:
    """More waits than losses are allowed, and then the replica comes."""
    bench.stages.gone, calls = frozenset({"denoise"}), 0

    async def come_late() -> None:
        nonlocal calls
        calls += 1
        if calls > bench.config.jobs.max_attempts + 1:
            bench.stages.gone = frozenset()
            bench.stages.before.clear()
            return
        raise TimeoutError  # as for a call that is given up on

    bench.stages.before["denoise 0"] = come_late
    job_id = await bench.submit()
    await (await bench.run()).run()
    assert (await bench.store.get(job_id)).state is JobState.SUCCEEDED
    assert bench.stages.asked == bench.config.jobs.max_attempts + 1


async def not_there() -> None:
    raise NotThere


@pytest.mark.parametrize("call", [asyncio.Event().wait, not_there])
async def test_a_stage_that_never_comes_gives_the_job_back_and_that_is_no_loss(bench: Bench, call: Any) -> None:
    patient = bench.config
    bench.impatient(start_timeout_s=0.2)
    bench.stages.gone = frozenset({"denoise"})
    bench.stages.before["denoise 0"] = call
    job_id = await bench.submit()
    for _ in range(bench.config.jobs.max_attempts + 1):
        await (await bench.run()).run()
        job = await bench.store.get(job_id)
        assert (job.state, job.attempts) == (JobState.QUEUED, 0)
    bench.stages.before.clear()
    bench.config = patient
    await (await bench.run()).run()
    assert (await bench.store.get(job_id)).state is JobState.SUCCEEDED


@pytest.mark.parametrize("start_timeout_s", [0.001, 600])
async def test_a_stage_that_never_answers_fails_the_job(bench: Bench, start_timeout_s: float) -> None:
    bench.impatient(start_timeout_s=start_timeout_s)
    bench.stages.gone = frozenset({"decode"})
    bench.stages.before["denoise 0"] = asyncio.Event().wait  # type: ignore[assignment]
    job_id = await bench.submit()
    await (await bench.run()).run()
    error = (await bench.store.get(job_id)).error
    assert error is not None
    assert error.reason == "WORKER_LOST"
