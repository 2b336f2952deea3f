"""A random history of the job store, step by step: the base of all rules."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine
from redis.asyncio import Redis

from helios_services.config import RedisConfig
from helios_services.jobs import keys
from helios_services.jobs.errors import JobStoreError
from helios_services.jobs.records import Account, JobSpec, Lease
from helios_services.jobs.store import JobStore
from services.jobs.model.checks import check
from services.jobs.model.dump import dump, timeless
from services.jobs.model.job import ModelJob
from services.jobs.model.small_store import JOBS, NAMESPACE
from services.jobs.model.store import Model


class StoreMachine(RuleBasedStateMachine):
    """A history of calls: what is drawn for them, and how each is compared with the model."""

    runner: asyncio.Runner
    client: Redis
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(JOBS)
        self.store = JobStore(self.client, RedisConfig(url=self.url, namespace=NAMESPACE), JOBS)
        self.specs: dict[str, JobSpec] = {}
        self.leases: list[Lease] = []
        self.count = 0
        self.run(self.client.flushdb())

    def run(self, call: Awaitable[Any]) -> Any:
        """Waits for it."""
        return self.runner.run(_awaited(call))

    def job(self, data: st.DataObject) -> ModelJob:
        """Any job."""
        return data.draw(st.sampled_from(list(self.model.jobs.values())), label="job")

    def held(self, data: st.DataObject) -> tuple[Lease, ModelJob]:
        """A lease: mostly one in force, now and then an old one."""
        current = [lease for lease in self.leases if self.model.holds(lease.job_id, lease.token)]
        self.leases = [lease for lease in self.leases if lease.job_id in self.model.jobs]
        sources = [current] * 6 + [self.leases] if current else [self.leases]
        lease = data.draw(st.sampled_from(data.draw(st.sampled_from(sources))), label="lease")
        return lease, self.model.jobs[lease.job_id]

    def kept(self, account: Account) -> list[str]:
        """Ended jobs of an account, the oldest end first: what only the clock knows."""
        entries = self.run(self.client.zrange(self.key("kept", account.id), 0, -1))
        return [entry.decode().partition(":")[2] for entry in entries]

    def compare(self, expected: str, call: Callable[[], Awaitable[str]], again: str | None = None) -> None:
        """The store answers as the model, twice, and the second time nothing changes."""
        assert self.run(_outcome(call)) == expected
        first = self.run(dump(self.client))
        check(self.model, first)
        assert self.run(_outcome(call)) == (expected if again is None else again)
        second = self.run(dump(self.client))
        assert timeless(first) == timeless(second)

    def key(self, *parts: str | int) -> str:
        """A key of the store."""
        return keys.Keys(NAMESPACE).of(*parts)


async def _awaited(call: Awaitable[Any]) -> Any:
    return await call


async def ok(call: Awaitable[Any]) -> str:
    """Waits for a call that answers nothing."""
    await call
    return "ok"


async def _outcome(call: Callable[[], Awaitable[str]]) -> str:
    try:
        return await call()
    except (JobStoreError, ValueError) as error:
        return type(error).__name__
