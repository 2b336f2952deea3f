"""What the job store is meant to do, as plain Python over plain records: the oracle of test_model.py.

It knows neither Redis nor time: what time brings about is a fact that the test sets ("the lease has lapsed").
"""

from dataclasses import dataclass, field
from typing import Any

from helios_services.config import JobsConfig
from helios_services.jobs.charge import CHUNK_MS
from helios_services.jobs.records import Account, Priority
from helios_services.jobs.state import DEAD_LETTERED, FINAL, LEASED, TRANSITIONS, Event, JobState

RECORD_BYTES, ENTRY_BYTES, CHUNK_BYTES = 4096, 64, 512
RANKS = {priority: rank for rank, priority in enumerate(Priority)}


@dataclass(kw_only=True)
class ModelJob:
    """A job."""

    id: str
    seq: int
    account: Account
    priority: Priority
    chunks_total: int
    session: bool
    key: str
    first_chunk_ms: int
    chunk_ms: int
    request_bytes: int
    summary_bytes: int
    state: JobState = JobState.QUEUED
    chunks_done: int = 0
    chunks_started: int = 0
    first_chunk: int = 0
    chunks_read: int = 0
    worker: str = ""
    alone: bool = False
    attempts: int = 0
    losses: int = 0
    token: int = 0
    reason: str = ""
    prompts: list[str] = field(default_factory=list)
    update_bytes: int = 0
    copied_bytes: int = 0
    """The state of the job that it continues, until it has one of its own."""
    dropped: bool = False
    """The summary is all that is left of its request."""
    over: bool = False
    """Its record's time is over."""
    checkpoint: bytes | None = None
    embeds: dict[str, bytes] = field(default_factory=dict)
    open_ended: bool = False
    stopping: bool = False
    paused: bool = False
    paused_too_long: bool = False
    parked: bool = False
    look_due: bool = False
    ever_claimed: bool = False
    lapsed: bool = False
    client_gone: bool = False
    dead: bool = False
    deadline: bool = False
    """It has one."""
    deadline_over: bool = False
    start_by_over: bool = False
    watched: bool = False
    """It is among those whose deadlines are looked at."""
    begun: tuple[int, int] | None = None
    """The chunk that a worker was last told to make: the lease's token, and the index."""
    video_taken_ms: int = 0
    """What it has of the account's video time, as long as some of it might be given back."""

    @property
    def record_bytes(self) -> int:
        """What it takes of its account's storage."""
        request = self.summary_bytes if self.dropped else self.request_bytes
        return request + self.summary_bytes + 2 * len(self.key) + RECORD_BYTES + self.update_bytes + self.copied_bytes

    @property
    def output_bytes(self) -> int:
        """What it has made and the store still has."""
        fragments = (self.chunks_done - self.first_chunk) * (1 + CHUNK_BYTES)
        init = len(b"init") if self.chunks_done else 0
        state = b"" if self.copied_bytes else self.checkpoint or b""
        return fragments + init + len(state) + sum(map(len, self.embeds.values()))

    def charge(self, index: int) -> int:
        """What a chunk costs, in milliseconds."""
        return self.chunk_ms if index else self.first_chunk_ms

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        return self.state is JobState.QUEUED and not self.parked

    @property
    def leased(self) -> bool:
        """Whether a worker has it."""
        return self.state in LEASED

    @property
    def ended(self) -> bool:
        """Whether it has come to a final state."""
        return self.state in FINAL


class Model:
    """The whole store. Methods answer "ok", another word, or the name of the error that the store raises."""

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
        """Of forgotten jobs, by account: it expires by itself."""
        self._last_words: dict[str, tuple[str, int]] = {}

    # ---- questions ----

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

    # ---- clients ----

    def submit(
        self, new: ModelJob, *, parent: str, timeout: bool, queue_timeout: bool, known: bool, kept: list[str]
    ) -> str:
        """known: the key was used before, with another request. kept: its account's ended jobs, oldest end first."""
        if new.key in self.keys:
            return "IdempotencyConflict" if known else f"ok {self.keys[new.key]}"
        account = new.account
        full, waiting = self.config.max_queued, len(self.waiting())
        if waiting >= full and (len(self.waiting(account.id)) >= full / 10 or waiting >= 2 * full):
            return "QueueFull"
        if account.max_queued is not None and len(self.waiting(account.id)) >= account.max_queued:
            return "QuotaExceeded"
        video_ms, limit_ms = _charged(new, new.chunks_total), _video_limit_ms(account)
        if limit_ms is not None and self.video_ms.get(account.id, 0) + max(video_ms, new.first_chunk_ms) > limit_ms:
            return "QuotaExceeded"
        if parent and self.jobs[parent].checkpoint is None:
            return "NotContinuable"
        new.copied_bytes = len(self.jobs[parent].checkpoint or b"") if parent else 0
        new.checkpoint = self.jobs[parent].checkpoint if parent else None
        if new.record_bytes > self.config.max_account_bytes or not self._make_room(account.id, new.record_bytes, kept):
            return "QuotaExceeded"
        if limit_ms is not None and video_ms:
            self.video_ms[account.id] = self.video_ms.get(account.id, 0) + video_ms
            new.video_taken_ms = video_ms
        self._catch_up(account.id)
        new.open_ended = new.chunks_total == 0
        new.deadline, new.watched = timeout, timeout or queue_timeout
        self.accepted += 1
        self.jobs[new.id] = new
        if new.key:
            self.keys[new.key] = new.id
        return f"ok {new.id}"

    def cancel(self, job: ModelJob) -> str:
        """The client's wish."""
        if job.state is JobState.CANCELLED:
            return "ok"
        if (job.state, Event.CANCEL) not in TRANSITIONS:
            return "InvalidTransition"
        self._finish(job, Event.CANCEL)
        return "ok"

    def control(self, job: ModelJob, action: str) -> str:
        """pause, resume or stop."""
        if job.state not in (JobState.QUEUED, JobState.RUNNING):
            return "InvalidTransition"
        if action == "pause":
            job.paused = True
            return "ok"
        job.paused = job.paused_too_long = False
        job.stopping = job.stopping or action == "stop"
        self._unpark(job)
        return "ok"

    def update_prompt(self, job: ModelJob, chunk: int, prompt: str, nonce: str, kept: list[str]) -> str:
        """Answers the chunk from which on it holds. kept: as for submit."""
        if job.state not in (JobState.QUEUED, JobState.RUNNING):
            return "InvalidTransition"
        if len(job.prompts) >= self.config.max_prompt_updates:
            return "PromptsFull"
        chunk = max(chunk, job.chunks_started)
        if job.stopping or chunk >= job.chunks_total > 0:
            return "NoChunkLeft"
        bytes_more = len(f'["{nonce}",{chunk},0,"{prompt}"]') + ENTRY_BYTES
        if job.update_bytes + bytes_more > self.config.max_prompt_update_bytes:
            return "PromptsFull"
        if not self._make_room(job.account.id, bytes_more, kept):
            return "QuotaExceeded"
        job.prompts.append(prompt)
        job.update_bytes += bytes_more
        return str(chunk)

    def keep_session(self, job: ModelJob) -> str:
        """A sign of life."""
        if not job.session or job.stopping or job.ended:
            return "SessionEnded"
        job.client_gone = False
        return "ok"

    def read(self, job: ModelJob, count: int) -> str:
        """The client has been sent so many chunks."""
        if job.session and not job.ended:
            job.chunks_read = max(job.chunks_read, min(count, job.chunks_done))
            if not job.paused and job.chunks_done - count < self.config.live_window_chunks:
                self._unpark(job)
        return "ok"

    def requeue(self, job: ModelJob) -> str:
        """An operator's wish."""
        if not job.dead:
            return "NotDeadLettered"
        job.state, job.reason, job.dead, job.losses = JobState.QUEUED, "", False, 0
        job.deadline = job.deadline_over = job.start_by_over = False
        self._catch_up(job.account.id, besides=job)
        return "ok"

    def purge(self, job: ModelJob) -> str:
        """An operator's wish."""
        if not job.dead:
            return "NotDeadLettered"
        job.dead, job.checkpoint, job.embeds = False, None, {}
        self._drop_request(job)
        self._give_back_video(job)
        return "ok"

    # ---- workers ----

    def claim(self, ranks: int, worker: str) -> ModelJob | None:
        """After a sweep."""
        self.sweep()
        job = self.next_job(ranks)
        held = [each for each in self.jobs.values() if each.leased and each.worker == worker]
        if any(each.alone and each.losses >= 2 for each in held) or (job is not None and held and job.losses >= 2):
            return None
        if job is not None:
            job.worker, job.alone = worker, job.losses >= 2
            job.state, job.ever_claimed, job.lapsed = JobState.RUNNING, True, False
            job.attempts, job.token = job.attempts + 1, job.token + 1
        return job

    def begin(self, job: ModelJob, token: int, index: int) -> str:
        """Before a chunk."""
        if not self.holds(job.id, token):
            return "LeaseLost"
        starts, limit_ms = index >= job.chunks_started, _video_limit_ms(job.account)
        counted = starts and job.open_ended and limit_ms is not None
        used_ms = self.video_ms.get(job.account.id, 0)
        no_video_left = limit_ms is not None and used_ms + job.charge(index) > limit_ms
        if (job.session and job.client_gone) or job.paused_too_long or (counted and no_video_left):
            job.stopping = True
        if job.stopping:
            job.chunks_total = index
            return "stopped"
        if job.paused:
            return "paused"
        if job.session and index - job.chunks_read >= self.config.live_window_chunks:
            return "ahead"
        if job.begun != (token, index) and self.outranked(job):
            return "outranked"
        job.begun = (token, index)
        if starts:
            job.chunks_started = index + 1
            self.clock = max(self.clock, self.share(job.account.id))
            chunks = job.charge(index) / CHUNK_MS
            self.shares[job.account.id] = self.share(job.account.id) + chunks / job.account.weight
            if counted:
                self.video_ms[job.account.id] = used_ms + job.charge(index)
        return "ok"

    def append(self, job: ModelJob, token: int, index: int) -> str:
        """A chunk."""
        if not self.holds(job.id, token):
            return "LeaseLost"
        if index != job.chunks_done or index >= job.chunks_total > 0:
            return "ValueError"
        job.chunks_done, job.losses, job.lapsed = index + 1, 0, False
        job.checkpoint, job.copied_bytes = b"state %d" % (index + 1), 0
        if job.open_ended:
            job.first_chunk = max(job.first_chunk, index + 1 - self.config.live_window_chunks)
        return "ok"

    def save_embeds(self, job: ModelJob, token: int, key: str, keep: tuple[str, ...]) -> str:
        """A prompt's embedding."""
        if not self.holds(job.id, token):
            return "LeaseLost"
        job.embeds = {name: data for name, data in job.embeds.items() if name in keep} | {key: b"embedding"}
        return "ok"

    def renew(self, job: ModelJob, token: int) -> str:
        """A heartbeat: also saves a lease that has lapsed and that nobody has looked at."""
        if not self.holds(job.id, token):
            return "LeaseLost"
        job.lapsed = False
        return "ok"

    def publish(self, job: ModelJob, token: int) -> str:
        """All chunks are there."""
        if not self.holds(job.id, token):
            return "LeaseLost"
        if job.state is JobState.RUNNING and job.chunks_done != job.chunks_total:
            return "ValueError"
        job.state = JobState.PUBLISHING
        return "ok"

    def finish(self, job: ModelJob, token: int, event: Event, reason: str = "") -> str:
        """succeed or fail."""
        if self._last_words.get(job.id) == (event, token):
            return "ok"
        if not self.holds(job.id, token):
            return "LeaseLost"
        if (job.state, event) not in TRANSITIONS:
            return "InvalidTransition"
        job.reason = reason
        self._last_words[job.id] = (event, token)
        self._finish(job, event)
        return "ok"

    def give_back(self, job: ModelJob, token: int, why: str) -> str:
        """release, give_way or park. "kept": there is no reason to, any more."""
        if self._last_words.get(job.id) == ("release", token):
            return "ok"
        if not self.holds(job.id, token):
            return "LeaseLost"
        ahead = job.session and job.chunks_done - job.chunks_read >= self.config.live_window_chunks
        if why == "park" and (job.stopping or not (job.paused or ahead)):
            return "kept"
        if why == "give_way" and not self.outranked(job):
            return "kept"
        self._last_words[job.id] = ("release", token)
        job.attempts -= 1
        self._unlease(job)
        job.state = JobState.QUEUED
        if why == "park":
            job.parked, job.look_due = True, job.paused_too_long or (job.session and job.client_gone)
        return "ok"

    def sweep(self) -> set[str]:
        """What time alone brings about; the jobs whose leases had lapsed."""
        for job in self.jobs.values():
            if not job.watched:
                continue
            if job.deadline_over or (job.start_by_over and job.state is JobState.QUEUED and not job.ever_claimed):
                job.reason = "DEADLINE_EXCEEDED" if job.deadline_over else "QUEUE_TIMEOUT"
                self._finish(job, Event.EXPIRE)
            elif job.start_by_over:
                job.watched = job.deadline
        for job in self.jobs.values():
            if job.parked and job.look_due:
                if job.session and not job.client_gone and not job.paused_too_long:
                    job.look_due = False
                else:
                    self._unpark(job)
        for account in {job.account.id for job in self.jobs.values() if job.over}:
            self._settle(account)
        lapsed = [job for job in self.jobs.values() if job.leased and job.lapsed]
        for job in lapsed:
            job.losses += 1
            if job.losses >= self.config.max_attempts:
                job.reason = "WORKER_LOST"
                self._finish(job, Event.FAIL)
            else:
                self._unlease(job)
                job.state = JobState.QUEUED
        return {job.id for job in lapsed}

    # ---- what several have in common ----

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
        unmade = job.video_taken_ms - _charged(job, max(job.chunks_started, job.chunks_done))
        if job.video_taken_ms and unmade > 0:
            self.video_ms[job.account.id] -= unmade
        job.video_taken_ms = 0


def _charged(job: ModelJob, chunks: int) -> int:
    return sum(job.charge(index) for index in range(chunks))


def _video_limit_ms(account: Account) -> int | None:
    minutes = account.video_minutes_per_day
    return None if minutes is None else round(minutes * 60_000)
