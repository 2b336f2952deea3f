"""What the model's store holds."""

from typing import Any

from helios_services.config import JobsConfig
from helios_services.jobs.records import Account, Priority
from helios_services.jobs.state import DEAD_LETTERED, TRANSITIONS, Event
from services.jobs.model.job import ModelJob

RANKS = {priority: rank for rank, priority in enumerate(Priority)}


class Facts:
    """All jobs and accounts. It answers questions about them, and has the effects that several calls share."""

    def __init__(self, jobs: JobsConfig) -> None:
        self.config = jobs
        self.jobs: dict[str, ModelJob] = {}
        self.keys: dict[str, str] = {}
        self.shares: dict[str, float] = {}
        self.clock = 0.0
        self.video_ms: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        self.accepted = 0
        self.forgotten: set[str] = set()
        self.left_output: dict[str, dict[str, int]] = {}
        """What forgotten jobs have made, by account: it expires by itself."""
        self._last_words: dict[str, tuple[str, int]] = {}

    def running(self, account: str) -> int:
        """Jobs of an account that workers have."""
        return sum(job.leased and job.account.id == account for job in self.jobs.values())

    def waiting(self, account: str | None = None) -> list[ModelJob]:
        """Queued jobs, of one account or of all."""
        return [job for job in self.jobs.values() if job.waits and account in (None, job.account.id)]

    def stored(self, account: str) -> int:
        """Bytes that an account's records take."""
        return sum(job.record_bytes for job in self.jobs.values() if job.account.id == account)

    def in_line(self, account: Account) -> bool:
        """Whether it may have one more job running."""
        return account.max_running is None or self.running(account.id) < account.max_running

    def share(self, account: str) -> float:
        """An account's virtual time."""
        return self.shares.get(account, 0.0)

    def next_job(self, ranks: int, yielding: str = "") -> ModelJob | None:
        """Who is claimed next. yielding: an account of which one running job is about to be given back."""
        for rank in range(ranks):
            heads: dict[str, ModelJob] = {}
            for job in sorted(self.waiting(), key=lambda job: job.seq):
                if RANKS[job.priority] == rank:
                    heads.setdefault(job.account.id, job)
            for account, job in sorted(heads.items(), key=lambda item: (self.share(item[0]), item[0])):
                limit = job.account.max_running
                if limit is None or self.running(account) - (account == yielding) < limit:
                    return job
        return None

    def outranked(self, job: ModelJob) -> bool:
        """Whether another job should have this one's worker."""
        mine = RANKS[job.priority]
        other = self.next_job(mine + 1, job.account.id)
        if other is None or RANKS[other.priority] < mine:
            return other is not None
        ahead = self.share(job.account.id) - self.share(other.account.id)
        return other.account.id != job.account.id and ahead >= self.config.fair_quantum_chunks

    def holds(self, job_id: str, token: int) -> bool:
        """Whether this is the job's lease."""
        return job_id in self.jobs and self.jobs[job_id].leased and self.jobs[job_id].token == token

    def _finish(self, job: ModelJob, event: Event) -> None:
        job.state = TRANSITIONS[job.state, event]
        job.parked = job.look_due = job.watched = False
        job.dead = event is Event.FAIL and job.reason in DEAD_LETTERED
        self._unlease(job)
        if not job.dead:
            job.embeds = {}
            self._give_back_video(job)
        if not job.dead and event is not Event.SUCCEED:
            job.checkpoint = None
            self._drop_request(job)
        job.client_gone = job.session  # its session is over with it
        self.ended[job.state] = self.ended.get(job.state, 0) + 1

    def _drop_request(self, job: ModelJob) -> None:
        job.dropped, job.prompts, job.update_bytes, job.copied_bytes = True, [], 0, 0

    def _forget(self, job: ModelJob) -> None:
        if job.output_bytes:
            self.left_output.setdefault(job.account.id, {})[job.id] = job.output_bytes
        del self.jobs[job.id]
        self.keys = {key: job_id for key, job_id in self.keys.items() if job_id != job.id}
        self.forgotten.add(job.id)

    def _settle(self, account: str) -> None:
        for job in list(self.jobs.values()):
            if job.over and job.account.id == account:
                self._forget(job)

    def _make_room(self, account: str, bytes_more: int, kept: list[str]) -> bool:
        self._settle(account)
        for job_id in kept:
            if self.stored(account) + bytes_more <= self.config.max_account_bytes:
                break
            if job_id in self.jobs and not self.jobs[job_id].dead:
                self._forget(self.jobs[job_id])
        return self.stored(account) + bytes_more <= self.config.max_account_bytes

    def _unlease(self, job: ModelJob) -> None:
        job.token, job.lapsed = job.token + 1, False

    def _unpark(self, job: ModelJob) -> None:
        if job.parked:
            self._catch_up(job.account.id, besides=job)
            job.parked = job.look_due = False

    def _catch_up(self, account: str, besides: Any = None) -> None:
        """Who has had nothing to do starts with those who are being served."""
        busy = self.running(account) or [job for job in self.waiting(account) if job is not besides]
        if not busy and self.clock > self.share(account):
            self.shares[account] = self.clock

    def _give_back_video(self, job: ModelJob) -> None:
        unmade = job.video_taken_ms - job.charged(max(job.chunks_started, job.chunks_done))
        if job.video_taken_ms and unmade > 0:
            self.video_ms[job.account.id] -= unmade
        job.video_taken_ms = 0


def video_limit_ms(account: Account) -> int | None:
    """The account's video time a day; None for no limit."""
    minutes = account.video_minutes_per_day
    return None if minutes is None else round(minutes * 60_000)
