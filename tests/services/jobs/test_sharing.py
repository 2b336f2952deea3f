"""Fair shares between accounts, priorities, and when a running job gives way."""

from collections import Counter
from uuid import uuid4

import pytest

from helios_services.config import RedisConfig
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import Account, Claim, Control, Lease, Priority, Verdict
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from services.jobs.conftest import JOBS, append, claim, spec
from support.redis_clients import async_client

A, B = Account(id="a"), Account(id="b")


async def submit(store: JobStore, *accounts: Account, chunks: int = 50, priority: Priority = Priority.NORMAL) -> None:
    """One job an account; its id begins with the account's."""
    for account in accounts:
        await store.submit(f"{account.id}-{uuid4().hex}", spec(chunks, priority), account=account)


async def simulate(store: JobStore, workers: int, chunks: int) -> Counter[str]:
    """Chunks by account that `workers` make in turn, giving way whenever they are told to."""
    made: Counter[str] = Counter()
    claims: list[Claim | None] = [None] * workers
    while sum(made.values()) < chunks:
        for number, held in enumerate(claims):
            current = held or await store.claim("m", "w", uuid4().hex)
            claims[number] = current
            if current is None:
                continue
            done = (await store.get(current.job.id)).chunks_done
            start = await store.begin_chunk(current.lease, done, 0)
            if start.verdict is Verdict.OUTRANKED:
                assert await store.give_way(current.lease)
                claims[number] = None
                continue
            assert start.verdict is Verdict.GO
            await append(store, current.lease, done)
            made[current.job.account] += 1
    return made


async def give_back(store: JobStore) -> None:
    """Jobs that a simulation still holds go back to the queue."""
    running = (await store.page(limit=99, states=[JobState.RUNNING])).jobs
    for job in running:
        fields = await store._client.hmget(store._keys.of("job", job.id), "token", "worker")
        await store.release(Lease(job_id=job.id, token=int(fields[0]), worker_id=fields[1].decode()))


@pytest.mark.parametrize("workers", [1, 3])
async def test_chunks_are_shared_by_weight_however_many_jobs_an_account_has(store: JobStore, workers: int) -> None:
    light, heavy = Account(id="light"), Account(id="heavy", weight=3.0)
    await submit(store, *[light] * 20, *[heavy] * 5, chunks=200)
    made = await simulate(store, workers, 200)
    # 1 to 3, up to the quantum that an account may be ahead by and a chunk of each worker
    assert abs(made["light"] - 50) <= JOBS.fair_quantum_chunks + workers


async def test_idleness_saves_nothing_up_and_work_done_is_not_forgotten(store: JobStore) -> None:
    await submit(store, A, chunks=200)
    await simulate(store, 1, 60)
    await submit(store, B, chunks=200)  # has had nothing; a has had 60
    await give_back(store)
    made = await simulate(store, 1, 40)
    assert abs(made["b"] - 20) <= JOBS.fair_quantum_chunks + 1


async def test_an_account_that_comes_back_is_not_served_before_its_turn(store: JobStore) -> None:
    await submit(store, A, B, chunks=200)
    await simulate(store, 2, 20)
    for job in (await store.page(limit=9)).jobs:
        if job.account == "b":
            await store.cancel(job.id)
    await submit(store, B, chunks=200)
    await give_back(store)
    made = await simulate(store, 1, 30)
    assert abs(made["b"] - 15) <= JOBS.fair_quantum_chunks + 1


@pytest.mark.parametrize(
    ("running", "waiting"), [("normal", "interactive"), ("batch", "interactive"), ("batch", "normal")]
)
async def test_a_job_gives_way_to_one_of_higher_priority_and_goes_on_later(
    store: JobStore, running: str, waiting: str
) -> None:
    await store.submit("low", spec(9, Priority(running)))
    low = await claim(store)
    assert (await store.begin_chunk(low.lease, 0, 0)).verdict is Verdict.GO
    await store.submit("high", spec(9, Priority(waiting)))
    await append(store, low.lease, 0)
    assert (await store.begin_chunk(low.lease, 1, 0)).verdict is Verdict.OUTRANKED
    assert [await store.give_way(low.lease) for _ in range(2)] == [True, True]  # also when the answer was lost
    given = await store.get("low")
    assert (given.state, given.attempts, given.chunks_done) == (JobState.QUEUED, 0, 1)
    high = await claim(store)
    assert high.job.id == "high"
    assert (await store.begin_chunk(high.lease, 0, 0)).verdict is Verdict.GO
    resumed = await claim(store)
    assert (resumed.job.id, resumed.checkpoint) == ("low", b"state 1")
    assert (await store.begin_chunk(resumed.lease, 1, 0)).verdict is Verdict.GO


async def test_who_was_served_meanwhile_is_given_way_to_no_more(store: JobStore) -> None:
    await store.submit("low", spec(9, Priority.BATCH))
    low = await claim(store)
    await store.submit("high", spec(9, Priority.INTERACTIVE))
    assert (await store.begin_chunk(low.lease, 0, 0)).verdict is Verdict.OUTRANKED
    await claim(store)  # by a free slot
    assert not await store.give_way(low.lease)
    assert (await store.begin_chunk(low.lease, 0, 0)).verdict is Verdict.GO


async def test_neither_equal_nor_lower_priority_nor_an_equal_share_takes_a_worker_away(store: JobStore) -> None:
    await submit(store, A)
    held = await claim(store)
    await submit(store, A, B)
    await submit(store, B, priority=Priority.BATCH)
    for index in range(int(JOBS.fair_quantum_chunks)):
        assert (await store.begin_chunk(held.lease, index, 0)).verdict is Verdict.GO
        await append(store, held.lease, index)
    assert (await store.begin_chunk(held.lease, 4, 0)).verdict is Verdict.OUTRANKED  # b has had 4 less by now


async def test_a_chunk_that_is_made_again_is_not_counted_again(store: JobStore, redis: RedisConfig) -> None:
    await submit(store, A)
    held = await claim(store)
    for _ in range(5):
        await store.begin_chunk(held.lease, 0, 0)
    async with async_client(redis.url) as client:
        assert float(await client.hget(Keys(redis.namespace).of("share", "m"), "a") or 0) == 1.0


async def test_a_worker_that_lost_the_answer_is_told_again_to_make_the_chunk(store: JobStore) -> None:
    await submit(store, A)
    held = await claim(store)
    await submit(store, B)
    for index in range(4):
        # the fourth chunk puts a four ahead, of which it is told before the fifth
        verdicts = [(await store.begin_chunk(held.lease, index, 0)).verdict for _ in range(2)]
        assert verdicts == [Verdict.GO] * 2
        await append(store, held.lease, index)
    assert (await store.begin_chunk(held.lease, 4, 0)).verdict is Verdict.OUTRANKED


async def test_a_pause_saves_nothing_up(store: JobStore) -> None:
    await submit(store, A, chunks=200)
    paused = await claim(store)
    await store.control(paused.job.id, Control.PAUSE)
    assert await store.park(paused.lease)
    await submit(store, B, chunks=200)
    await simulate(store, 1, 60)
    await give_back(store)
    await store.control(paused.job.id, Control.RESUME)
    made = await simulate(store, 1, 40)
    assert abs(made["b"] - 20) <= JOBS.fair_quantum_chunks + 1


async def test_an_account_at_its_limit_gives_way_to_its_own_more_urgent_job(store: JobStore) -> None:
    limited = Account(id="a", max_running=1)
    await submit(store, limited, priority=Priority.BATCH)
    held = await claim(store)
    await submit(store, limited, priority=Priority.INTERACTIVE)
    assert (await store.begin_chunk(held.lease, 0, 0)).verdict is Verdict.OUTRANKED
    assert await store.give_way(held.lease)
    assert (await claim(store)).job.spec.priority is Priority.INTERACTIVE


async def test_slots_for_interactive_jobs_take_no_other(store: JobStore) -> None:
    await submit(store, A)
    assert await store.claim("m", "w", "n1", interactive_only=True) is None
    await submit(store, B, priority=Priority.INTERACTIVE)
    claimed = await store.claim("m", "w", "n2", interactive_only=True)
    assert claimed is not None
    assert claimed.job.account == "b"


@pytest.mark.parametrize("end", ["cancel", "claim"])
async def test_an_account_that_waits_no_more_leaves_nothing_in_the_queue(
    store: JobStore, redis: RedisConfig, end: str
) -> None:
    await store.submit("x", spec(), account=A)
    await (store.cancel("x") if end == "cancel" else claim(store))
    async with async_client(redis.url) as client:
        left = [key.decode() async for key in client.scan_iter(f"helios:{{{redis.namespace}}}:*")]
    assert [key for key in left if ":lane" in key or ":queue" in key] == []
