"""What has to be done to the store now and then: by gateways and workers, whoever comes to it."""

import json
import secrets
from collections.abc import Sequence

from helios_services.jobs.codec import stored_json, summary_json
from helios_services.jobs.reader import ConfiguredReader
from helios_services.jobs.work import JOBS_COUNTED, Pace, Work, work_from_answer

MAX_SWEEPS = 100
"""Scripts that one sweep runs, each a bounded part of it; what is left waits for the next."""
SCRUBBED = 10
"""Jobs looked at by a sweep for what another release has left out."""
MIGRATED = 100
"""The same by one script of a migration."""
LAYOUT = b"2"
"""The layout of records and lists that this release keeps; 1 had no summaries and no lists of tenants and accounts."""


class Upkeep(ConfiguredReader):
    """Sweeps, migration and counts."""

    _migrated = False

    async def sweep(self) -> list[str]:
        """What time alone brings about: lapsed leases are taken away, deadlines kept, expired records forgotten.

        Returns the ids of jobs whose lease had lapsed.
        """
        await self._migrate()
        lapsed: list[str] = []
        for _ in range(MAX_SWEEPS):
            more, ids = await self._sweep_once()
            lapsed += ids
            if not more:
                break
        await self._scrub(SCRUBBED)
        return lapsed

    async def work(self, model: str, measured: Sequence[Pace] = ()) -> Work:
        """What there is to do, and how fast chunks are made; `measured` goes into that."""
        pace = [part for pace in measured for part in (pace.stage, pace.chunks, f"{pace.seconds:.6f}")]
        return work_from_answer(await self._run("work", model, JOBS_COUNTED, self._ttls[0], *pace))

    async def _sweep_once(self) -> tuple[bool, list[str]]:
        _, more, *lapsed = await self._run("sweep", self._jobs.max_attempts, *self._ttls)
        return more == "1", lapsed

    async def _migrate(self) -> None:
        """Brings a store that an older release has written to this one's layout. May be done by several at once."""
        if self._migrated:
            return
        layout = self._keys.of("layout")
        if await self._answer(self._client.hget(layout, "version")) != LAYOUT:
            await self._answer(self._client.hset(layout, "scrubbed", 0))
            while not await self._scrub(MIGRATED):
                pass
            await self._make_cursor_key()
            await self._answer(self._client.hset(layout, "version", LAYOUT))
        self._migrated = True

    async def _make_cursor_key(self) -> None:
        """The first one's is for all."""
        await self._answer(self._client.set(self._keys.of("cursor_key"), secrets.token_bytes(32), nx=True))

    async def _scrub(self, looks: int) -> bool:
        """Looks at some more jobs, round and round. Answers whether it has come to the last.

        Processes of the release before may still run: what they write is adopted here.
        """
        layout = self._keys.of("layout")
        walked = await self._answer(self._client.hget(layout, "scrubbed")) or b"0"
        onward, *job_ids = await self._run("scrub", walked, looks)
        for job_id in job_ids:
            await self._adopt(job_id)
        if onward != walked.decode():
            await self._answer(self._client.hset(layout, "scrubbed", onward))
        return onward == "0"

    async def _adopt(self, job_id: str) -> None:
        text = await self._answer(self._client.hget(self._keys.of("job", job_id), "spec"))
        if text is None:
            return
        spec = json.loads(text)
        fps = spec["params"].get("fps", 24)
        await self._run("adopt", job_id, stored_json(spec), summary_json(spec), spec.get("tenant", ""), "fps", fps)
