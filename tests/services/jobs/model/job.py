"""A job as the model knows it."""

from dataclasses import dataclass, field

from helios_services.jobs.records import Account, Priority
from helios_services.jobs.state import FINAL, LEASED, JobState

RECORD_BYTES, ENTRY_BYTES, CHUNK_BYTES = 4096, 64, 512


@dataclass(kw_only=True)
class ModelJob:
    """Facts about one job. What time brings about is a fact that the test sets."""

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

    def charged(self, chunks: int) -> int:
        """What its first chunks cost together, in milliseconds."""
        return sum(self.charge(index) for index in range(chunks))
