"""What time brings about in a random history."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from services.jobs.model.machine import StoreMachine


class TimeRules(StoreMachine):
    """The sweep, and what it finds."""

    @rule()
    def sweep(self) -> None:
        """A gateway looks after what time brings about. (Swept again, there is nothing left.)"""
        expected = " ".join(sorted(self.model.sweep()))

        async def call() -> str:
            return " ".join(sorted(await self.store.sweep()))

        self.compare(expected, call, again="")

    @precondition(lambda self: any(job.leased for job in self.model.jobs.values()))
    @rule(data=st.data())
    def lapse(self, data: st.DataObject) -> None:
        """A lease runs out."""
        leased = [job for job in self.model.jobs.values() if job.leased]
        job = data.draw(st.sampled_from(leased), label="job")
        job.lapsed = True
        self.run(self.client.zadd(self.key("leases"), {job.id: 1}))

    @precondition(lambda self: any(not job.ended for job in self.model.jobs.values()))
    @rule(data=st.data(), name=st.sampled_from(["deadline", "start_by", "pause", "client"]))
    def too_late(self, data: st.DataObject, name: str) -> None:
        """A deadline or a queue timeout passes, a pause becomes too long, a session's client goes."""
        job = data.draw(st.sampled_from([job for job in self.model.jobs.values() if not job.ended]), label="job")
        match name:
            case "deadline":
                job.deadline = job.deadline_over = job.watched = True
                self.run(self.client.hset(self.key("job", job.id), "deadline_ms", 1))
                self.run(self.client.zadd(self.key("deadlines"), {job.id: 1}))
            case "start_by":
                job.start_by_over = job.watched = True
                self.run(self.client.hset(self.key("job", job.id), "start_by_ms", 1))
                self.run(self.client.zadd(self.key("deadlines"), {job.id: 1}))
            case "pause" if job.paused and job.ever_claimed:
                job.paused_too_long, job.look_due = True, job.parked
                times: dict[Any, Any] = {"paused_ms": 1, "started_ms": 1, "parked_until_ms": 1}
                self.run(self.client.hset(self.key("job", job.id), mapping=times))
                self.run(self.client.zadd(self.key("parked"), {job.id: 1}, xx=True))
            case "client" if job.session:
                job.client_gone, job.look_due = True, job.parked
                self.run(self.client.delete(self.key("session", job.id)))
                self.run(self.client.zadd(self.key("parked"), {job.id: 1}, xx=True))

    @precondition(lambda self: any(job.ended for job in self.model.jobs.values()))
    @rule(data=st.data())
    def expire_record(self, data: st.DataObject) -> None:
        """The time of an ended job's record is over."""
        job = data.draw(st.sampled_from([job for job in self.model.jobs.values() if job.ended]), label="job")
        job.over = True
        account = job.account.id
        self.run(self.client.zadd(self.key("kept", account), {f"{account}:{job.id}": 1}, xx=True))
        self.run(self.client.zadd(self.key("expiring"), {account: 1}, xx=True))
