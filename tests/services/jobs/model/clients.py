"""What the store is meant to do when a client or an operator calls."""

from helios_services.jobs.state import TRANSITIONS, Event, JobState
from services.jobs.model.facts import Facts, video_limit_ms
from services.jobs.model.job import ENTRY_BYTES, ModelJob


class ClientCalls(Facts):
    """The calls of clients and operators."""

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
        video_ms, limit_ms = new.charged(new.chunks_total), video_limit_ms(account)
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
