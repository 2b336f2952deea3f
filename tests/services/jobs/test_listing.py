"""Lists of jobs: by tenant, in bounded pages that go on where the last one ended."""

import base64
from dataclasses import replace

import pytest

from helios_services.config import RedisConfig
from helios_services.jobs import listing
from helios_services.jobs.connector import Connector
from helios_services.jobs.cursors import Cursors
from helios_services.jobs.errors import InvalidCursor
from helios_services.jobs.records import JobPage
from helios_services.jobs.state import JobState
from helios_services.jobs.store import JobStore
from services.jobs.conftest import JOBS, spec


async def fill(store: JobStore, jobs: int) -> None:
    """Jobs of two tenants in turn; every fifth is cancelled."""
    for number in range(jobs):
        await store.submit(f"j{number:02d}", replace(spec(prompt="secret"), tenant="ab"[number % 2]))
        if number % 5 == 0:
            await store.cancel(f"j{number:02d}")


async def pages(store: JobStore, **options: object) -> list[list[str]]:
    """Ids, page by page."""
    found, cursor = [], ""
    while True:
        page = await store.page(cursor=cursor, **options)  # type: ignore[arg-type]
        found.append([job.id for job in page.jobs])
        cursor = page.next_cursor
        if not cursor:
            return found


async def test_a_tenant_sees_its_own_in_summaries(store: JobStore) -> None:
    await fill(store, 10)
    assert await pages(store, limit=3, tenant="a") == [["j08", "j06", "j04"], ["j02", "j00"]]
    assert await pages(store, limit=5, tenant="b") == [["j09", "j07", "j05", "j03", "j01"]]
    assert await pages(store, limit=5, tenant="c") == [[]]
    assert len(await pages(store, limit=5)) == 2
    (job, *_) = (await store.page(limit=1, tenant="a")).jobs
    whole = await store.get(job.id)
    assert whole.spec.params["prompt"] == "secret"
    assert job == replace(whole, spec=replace(whole.spec, params=whole.spec.params | {"prompt": ""}))


async def test_a_page_that_has_looked_at_enough_is_short_and_goes_on(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, 30)
    monkeypatch.setattr(listing, "JOBS_LOOKED_AT", 4)
    assert await pages(store, limit=2, tenant="a", states=[JobState.CANCELLED]) == [[], ["j20"], ["j10"], ["j00"]]
    assert await pages(store, limit=2, tenant="a", model="other") == [[], [], [], []]


async def test_a_page_has_a_bounded_number_of_bytes(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        await store.submit(f"j{number}", replace(spec(), labels={"l": "x" * 3000}))
    monkeypatch.setattr(listing, "PAGE_BYTES", 10_000)
    assert await pages(store, limit=50) == [["j5", "j4"], ["j3", "j2"], ["j1", "j0"]]
    monkeypatch.setattr(listing, "PAGE_BYTES", 10)  # one in any case: a list must come to its end
    assert len(await pages(store, limit=50)) == 6


async def test_a_job_that_goes_in_between_does_not_matter(store: JobStore, redis: RedisConfig) -> None:
    await fill(store, 10)
    first = await store.page(limit=2, tenant="a")
    await store._client.delete(store._keys.of("job", first.jobs[-1].id))
    await store.submit("later", replace(spec(), tenant="a"))
    second = await store.page(limit=9, tenant="a", cursor=first.next_cursor)
    assert [job.id for job in second.jobs] == ["j04", "j02", "j00"]


async def test_a_store_that_was_emptied_lists_again(store: JobStore) -> None:
    await fill(store, 4)
    await store._client.delete(*[key async for key in store._client.scan_iter(store._keys.of("") + "*")])
    assert await store.page(limit=2) == JobPage(jobs=[], next_cursor="")
    await fill(store, 4)
    assert await pages(store, limit=3) == [["j03", "j02", "j01"], ["j00"]]


async def test_cursors_tell_nothing_and_cannot_be_made(store: JobStore, redis: RedisConfig) -> None:
    await fill(store, 10)
    cursor = (await store.page(limit=2, tenant="a")).next_cursor
    data = base64.urlsafe_b64decode(cursor)
    assert b"7" not in data[16:] or b"\0\0\0" not in data  # no number as text or in plain bytes
    assert (await store.page(limit=3, tenant="a")).next_cursor != cursor
    other = Connector(redis, JOBS).store()  # another gateway takes it
    assert [job.id for job in (await other.page(limit=9, tenant="a", cursor=cursor)).jobs] == ["j04", "j02", "j00"]
    await other.close()
    for wrong in ("x", "7", cursor[:-2], cursor[:8] + ("A" if cursor[8] != "A" else "B") + cursor[9:], cursor * 3, "é"):
        with pytest.raises(InvalidCursor):
            await store.page(limit=9, tenant="a", cursor=wrong)
    for options in (
        {"tenant": "b"},
        {"tenant": None},
        {"tenant": "a", "model": "m"},
        {"tenant": "a", "dead_letters": True},
    ):
        with pytest.raises(InvalidCursor):
            await store.page(limit=9, cursor=cursor, **options)


def test_positions_come_back_from_cursors_of_the_same_secret_only() -> None:
    cursors = Cursors(b"secret")
    for position in (0, 1, 2**53):
        sealed = cursors.seal(position, "scope")
        assert cursors.open(sealed, "scope") == position
        for other, scope in ((Cursors(b"another"), "scope"), (cursors, "scope 2")):
            with pytest.raises(InvalidCursor):
                other.open(sealed, scope)
