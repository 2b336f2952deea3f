"""What the store is meant to do when a worker calls, or time passes."""

from helios_services.jobs.charge import CHUNK_MS
from helios_services.jobs.state import TRANSITIONS, Event, JobState
from services.jobs.model.facts import Facts, video_limit_ms
from services.jobs.model.job import ModelJob


class WorkerCalls(Facts):
    """The calls of workers, and the sweep."""

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
        starts, limit_ms = index >= job.chunks_started, video_limit_ms(job.account)
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
