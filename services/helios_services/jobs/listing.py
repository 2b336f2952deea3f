"""Lists of jobs, in pages of bounded size and cost."""

import asyncio
import json
from collections.abc import Collection

from helios_services.jobs.calls import record_of
from helios_services.jobs.codec import job_from_hash
from helios_services.jobs.cursors import Cursors
from helios_services.jobs.errors import InvalidCursor
from helios_services.jobs.records import JobPage
from helios_services.jobs.state import JobState
from helios_services.jobs.upkeep import Upkeep

JOBS_LOOKED_AT = 500
"""By one page: one with filters may be short for that, and still have a successor."""
JOBS_IN_A_ROW = 25
"""That are read before others have the event loop: some 2 ms."""
PAGE_BYTES = 2 * 1024 * 1024
"""Summaries in one page: gRPC's clients take 4 MiB a message unless told otherwise."""


class JobList(Upkeep):
    """Pages of summaries."""

    async def page(
        self,
        *,
        limit: int,
        cursor: str = "",
        after: str = "",
        oldest_first: bool = False,
        states: Collection[JobState] = (),
        model: str = "",
        tenant: str | None = None,
        dead_letters: bool = False,
    ) -> JobPage:
        """Jobs that are in one of `states` (any if empty), newest first. Summaries: see Job.

        oldest_first: in the other order. limit: jobs at most; a page ends earlier when it has enough bytes, or has
        looked at enough jobs. cursor: that of the page before, with the same other arguments. after: instead of it, the
        id of the last job of that page. tenant: whose jobs (None: everybody's). dead_letters: only those. Raises
        InvalidCursor.
        """
        await self._migrate()
        cursors = Cursors(await self._secret())
        scope = json.dumps([sorted(states), model, tenant, dead_letters])
        beyond: int | str = cursors.open(cursor, scope) if cursor else ""
        every, one = ("dead", "tenant_dead") if dead_letters else ("index", "tenant")
        index = every if tenant is None else f"{one}:{tenant}"
        if after:
            beyond = await self._place(index, after)
        order = "asc" if oldest_first else "desc"
        answer = await self._call("page", index, beyond, limit, JOBS_LOOKED_AT, PAGE_BYTES, model, order, *states)
        last, *records = answer
        jobs = []
        for job_id, record in zip(records[::2], records[1::2], strict=True):
            jobs.append(job_from_hash(job_id.decode(), record_of(record)))
            if not len(jobs) % JOBS_IN_A_ROW:
                await asyncio.sleep(0)
        return JobPage(jobs=jobs, next_cursor=cursors.seal(int(last), scope) if last else "")

    async def _place(self, index: str, job_id: str) -> int:
        """The job's submission number. Raises InvalidCursor for one that is not in the list."""
        place = await self._answer(self._client.zscore(self._keys.of(index), job_id))
        if place is None:
            raise InvalidCursor(f"after: {job_id!r} is no job of this list")
        return int(place)

    async def _secret(self) -> bytes:
        """It was made with the store's layout, so that a store at maxmemory lists its jobs; one that was emptied since
        gets another."""
        key = self._keys.of("cursor_key")
        if (secret := await self._answer(self._client.get(key))) is None:
            await self._make_cursor_key()
            secret = await self._answer(self._client.get(key))
        return bytes(secret)
