"""What chunks are charged, and that quotas and fair shares keep to it."""

from typing import Any

import pytest

from helios_engine.variants import VARIANTS, make_request
from helios_services.config import RedisConfig
from helios_services.jobs.charge import CHUNK_MS, Charge, charge_of
from helios_services.jobs.errors import QuotaExceeded
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import Account, Verdict
from helios_services.jobs.store import JobStore
from services.jobs.conftest import append, claim, spec
from support.redis_clients import async_client


def charged(variant: str = "distilled", **fields: Any) -> Charge:
    return charge_of(make_request(variant, prompt="a lake", **fields).to_dict())


@pytest.mark.parametrize("variant", VARIANTS)
def test_default_video_is_charged_its_play_time(variant: str) -> None:
    """So a quota in minutes keeps the meaning that it had."""
    assert charged(variant) == Charge(1375, 1375)
    assert pytest.approx(33 / 24 * 1000) == CHUNK_MS


@pytest.mark.parametrize(
    ("variant", "fields", "factor"),
    [
        ("distilled", {"fps": 120}, 1),
        ("distilled", {"fps": 1}, 1),
        ("distilled", {"height": 768, "width": 1280}, 4),
        ("distilled", {"height": 192, "width": 320}, 0.25),
        ("distilled", {"pyramid_steps": (1, 1, 1)}, 0.5),
        ("distilled", {"pyramid_steps": (50, 50, 50)}, 25),
        ("distilled", {"pyramid_steps": (2, 2, 50)}, (2 * 0.513 + 50) / (2 * 1.513)),
        ("distilled", {"pyramid_steps": (50, 2, 2)}, (50 * 0.187 + 2 * 1.326) / (2 * 1.513)),
        ("mid", {"guidance_scale": 1.0}, 0.5),
        ("mid", {"pyramid_steps": (10, 10, 10), "guidance_scale": 1.0}, 0.25),
        ("base", {"num_inference_steps": 200}, 4),
        ("base", {"guidance_scale": 1.0}, 0.5),
        ("base", {"height": 384, "width": 1280, "num_inference_steps": 25}, 1),
    ],
)
def test_the_charge_goes_by_work(variant: str, fields: dict[str, Any], factor: float) -> None:
    charge = charged(variant, **fields)
    assert charge.chunk_ms == pytest.approx(1375 * factor, abs=1)
    assert charge.first_chunk_ms == charge.chunk_ms


def test_an_amplified_first_chunk_counts_twice() -> None:
    assert charged(amplify_first_chunk=True) == Charge(2750, 1375)


@pytest.mark.parametrize(("upload", "chunks"), [("image", 1), ("video", 8), ("", 0)])
def test_an_upload_is_charged_with_the_first_chunk(upload: str, chunks: int) -> None:
    params = make_request("distilled", prompt="a lake").to_dict()
    assert charge_of(params, upload) == Charge(1375 + chunks * 1375, 1375)


async def submit(store: JobStore, job_id: str, account: Account, chunks: int = 2, **params: Any) -> None:
    defaults: dict[str, Any] = {"pyramid_steps": [2, 2, 2], "guidance_scale": 1.0, "amplify_first_chunk": False}
    await store.submit(job_id, spec(chunks, **defaults | params), account=account)


async def used_ms(redis: RedisConfig, account: str) -> int:
    async with async_client(redis.url) as client:
        keys = [key async for key in client.scan_iter(Keys(redis.namespace).of("video_ms", account, "*"))]
        return sum([int(await client.get(key) or 0) for key in keys])


async def test_a_higher_frame_rate_gives_no_more_video(store: JobStore) -> None:
    account = Account(id="a", video_minutes_per_day=4 * 1.375 / 60)
    await submit(store, "slow", account, fps=24)
    await submit(store, "fast", account, fps=120)
    with pytest.raises(QuotaExceeded, match="video_minutes_per_day"):
        await submit(store, "more", account, 1, fps=120)


async def test_more_steps_take_more_of_the_day(store: JobStore, redis: RedisConfig) -> None:
    account = Account(id="a", video_minutes_per_day=10.0)
    await submit(store, "a", account, 2, pyramid_steps=[50, 50, 50])
    assert await used_ms(redis, "a") == 2 * 34_375
    with pytest.raises(QuotaExceeded) as caught:
        await submit(store, "b", account, 18, pyramid_steps=[50, 50, 50])
    assert caught.value.retry_after_s is None  # it alone is more than a day's


async def test_what_was_started_stays_charged_and_the_rest_is_given_back(store: JobStore, redis: RedisConfig) -> None:
    account = Account(id="a", video_minutes_per_day=10.0)
    for job_id in ("unstarted", "started", "further"):
        await submit(store, job_id, account, 4, amplify_first_chunk=True)
    assert await used_ms(redis, "a") == 3 * (2750 + 3 * 1375)
    await claim(store)
    await store.cancel("unstarted")  # claimed, and no chunk begun
    assert await used_ms(redis, "a") == 2 * (2750 + 3 * 1375)
    started = (await claim(store)).lease
    assert (await store.begin_chunk(started, 0, 0)).verdict is Verdict.GO
    await store.cancel("started")  # in its first chunk
    assert await used_ms(redis, "a") == 2750 + 3 * 1375 + 2750
    further = (await claim(store)).lease
    for index in range(2):
        await store.begin_chunk(further, index, 0)
        await append(store, further, index)
    await store.cancel("further")
    assert await used_ms(redis, "a") == 2750 + 1375 + 2750


async def test_an_open_ended_job_is_charged_chunk_by_chunk(store: JobStore, redis: RedisConfig) -> None:
    account = Account(id="a", video_minutes_per_day=5 * 1.375 / 60)
    await submit(store, "a", account, 0, amplify_first_chunk=True)
    lease = (await claim(store)).lease
    verdicts = []
    for index in range(5):
        verdicts.append((await store.begin_chunk(lease, index, 0)).verdict)
        if verdicts[-1] is Verdict.GO:
            await append(store, lease, index)
    assert verdicts[:5] == [Verdict.GO] * 4 + [Verdict.STOPPED]
    assert await used_ms(redis, "a") == 5 * 1375


async def test_shares_are_of_work(store: JobStore, redis: RedisConfig) -> None:
    """Whose chunks cost four times as much gets a quarter as many."""
    light, heavy = Account(id="light"), Account(id="heavy")
    await submit(store, "light", light, 500)
    await submit(store, "heavy", heavy, 500, height=768, width=1280)
    made = {"light": 0, "heavy": 0}
    held = None
    while sum(made.values()) < 100:
        held = held or await claim(store)
        name = held.job.id
        start = await store.begin_chunk(held.lease, made[name], 0)
        if start.verdict is Verdict.OUTRANKED:
            assert await store.give_way(held.lease)
            held = None
            continue
        await append(store, held.lease, made[name])
        made[name] += 1
    assert abs(made["light"] - 80) <= 4 + 4  # a quantum, and a heavy chunk
    async with async_client(redis.url) as client:
        shares = await client.hgetall(Keys(redis.namespace).of("share", "m"))
    assert float(shares[b"light"]) == made["light"]
    assert float(shares[b"heavy"]) == 4 * made["heavy"]
