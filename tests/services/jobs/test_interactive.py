"""Prompt updates, controls, sessions and open-ended jobs in the store."""

from uuid import uuid4

import pytest

from helios_engine.prompts import ScheduledPrompt
from helios_services.config import RedisConfig
from helios_services.jobs.connector import Connector
from helios_services.jobs.errors import InvalidTransition, LeaseLost, NoChunkLeft, PromptsFull
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import Control, Start, Verdict
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from services.jobs.conftest import JOBS, append, claim, spec
from support.redis_clients import async_client


def update(text: str, chunk: int = 0) -> ScheduledPrompt:
    return ScheduledPrompt(chunk_index=chunk, prompt=text, interpolation_chunks=0)


async def test_a_repeated_update_is_one_update(store: JobStore) -> None:
    await store.submit("a", spec(chunks=5))
    claimed = await claim(store)
    answers = [await store.update_prompt("a", update('é \\ " ü'), "nonce")]
    await store.begin_chunk(claimed.lease, 0, 0)
    answers.append(await store.update_prompt("a", update('é \\ " ü'), "nonce"))  # its first reply was lost
    answers.append(await store.update_prompt("a", update("b"), "another"))
    assert answers == [0, 0, 1]
    assert [each.prompt for each in (await store.get("a")).prompt_updates] == ['é \\ " ü', "b"]
    assert await store.update_prompt("a", update("c", chunk=3), uuid4().hex) == 3


async def test_a_repeated_begin_gives_the_same_verdict_and_updates(store: JobStore) -> None:
    await store.submit("a", spec(chunks=2))
    claimed = await claim(store)
    await store.update_prompt("a", update("b"), "n")
    for _ in range(2):
        assert await store.begin_chunk(claimed.lease, 0, 0) == Start(verdict=Verdict.GO, prompt_updates=(update("b"),))
    await store.begin_chunk(claimed.lease, 1, 1)
    with pytest.raises(NoChunkLeft):
        await store.update_prompt("a", update("c"), "m")
    await store.cancel("a")
    with pytest.raises(LeaseLost):
        await store.begin_chunk(claimed.lease, 1, 1)


async def test_updates_are_bounded(redis: RedisConfig) -> None:
    store = Connector(redis, JOBS.model_copy(update={"max_prompt_updates": 2})).store()
    await store.submit("a", spec(chunks=5))
    for nonce in ("1", "2"):
        await store.update_prompt("a", update("b"), nonce)
    with pytest.raises(PromptsFull, match="2 times"):
        await store.update_prompt("a", update("b"), "3")
    assert await store.update_prompt("a", update("b"), "2") == 0  # a repetition is still answered
    await store.close()


async def test_controls_need_a_job_that_has_not_ended(store: JobStore) -> None:
    await store.submit("a", spec(chunks=2))
    claimed = await claim(store)
    assert (await store.control("a", Control.PAUSE)).paused
    assert (await store.begin_chunk(claimed.lease, 0, 0)).verdict is Verdict.PAUSED
    assert not (await store.control("a", Control.RESUME)).paused
    assert (await store.begin_chunk(claimed.lease, 0, 0)).verdict is Verdict.GO
    await append(store, claimed.lease, 0)
    await store.control("a", Control.STOP)
    with pytest.raises(NoChunkLeft):
        await store.update_prompt("a", update("b"), "n")
    assert (await store.begin_chunk(claimed.lease, 1, 0)).verdict is Verdict.STOPPED
    assert (await store.get("a")).chunks_total == 1
    await store.begin_publish(claimed.lease)
    for action in Control:
        with pytest.raises(InvalidTransition):
            await store.control("a", action)


async def test_a_job_paused_for_too_long_is_stopped(store: JobStore, redis: RedisConfig) -> None:
    await store.submit("a", spec(chunks=0))
    claimed = await claim(store)
    await store.begin_chunk(claimed.lease, 0, 0)
    await append(store, claimed.lease, 0)
    await store.control("a", Control.PAUSE)
    assert (await store.begin_chunk(claimed.lease, 1, 0)).verdict is Verdict.PAUSED
    async with async_client(redis.url) as client:
        for field in ("started_ms", "paused_ms"):  # a pause counts from when a worker first has the job
            assert (await store.begin_chunk(claimed.lease, 1, 0)).verdict is Verdict.PAUSED
            long_ago_ms = -int(1000 * JOBS.pause_limit_s)
            await client.hincrby(Keys(redis.namespace).of("job", "a"), field, long_ago_ms)
    assert (await store.begin_chunk(claimed.lease, 1, 0)).verdict is Verdict.STOPPED


async def test_storage_stays_flat_over_hundreds_of_chunks_of_an_open_ended_job(redis: RedisConfig) -> None:
    window = 8
    store = Connector(redis, JOBS.model_copy(update={"live_window_chunks": window})).store()
    await store.submit("a", spec(chunks=0))
    claimed = await claim(store)
    sizes: dict[int, tuple[int, int]] = {}
    async with async_client(redis.url) as client:
        for index in range(400):
            await store.begin_chunk(claimed.lease, index, 0)
            await store.save_prompt_embeds(claimed.lease, f"key{index}", bytes(1000), keep=(f"key{index - 1}",))
            await append(store, claimed.lease, index)
            if index in (100, 399):
                keys = [key async for key in client.scan_iter(f"helios:{{{redis.namespace}}}:*")]
                sizes[index] = len(keys), sum([await client.memory_usage(key) or 0 for key in keys])
    assert sizes[100][0] == sizes[399][0] < window + 20
    assert sizes[399][1] < sizes[100][1] * 1.02
    job = await store.get("a")
    assert (job.first_chunk, job.chunks_done, job.state) == (400 - window, 400, JobState.RUNNING)
    assert [record.index for record in await store.chunk_records(job, job.first_chunk)] == list(range(392, 400))
    await store.close()
