"""Why the job store refuses, or does not answer."""


class StoreUnavailable(Exception):
    """The job store cannot be reached, or did not answer in time: whether the call took effect is not known."""


class JobStoreError(Exception):
    """Base of the refusals below."""


class JobNotFound(JobStoreError):
    """No such job, or its record has expired."""


class JobTooLarge(JobStoreError):
    """The request takes `size_bytes` in the store, and `limit_bytes` are allowed."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"the request takes {size_bytes:,} bytes in the store; allowed: at most {limit_bytes:,}")
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes


class InvalidCursor(JobStoreError):
    """The cursor is not one that this list gave."""


class QueueFull(JobStoreError):
    """The queue of this model holds as many jobs as it may; `retry_after_s` says when to come back (None: never)."""

    def __init__(self, message: str, *, retry_after_s: float | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QuotaExceeded(QueueFull):
    """The account has used up one of its limits; `limit` is the limit's name."""

    def __init__(self, message: str, *, limit: str, retry_after_s: float | None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.limit = limit


class StorageFull(QueueFull):
    """Redis is at maxmemory: nothing is accepted until space is free."""


class MediaFull(QueueFull):
    """As many uploads are kept as may be."""


class PromptsFull(JobStoreError):
    """The job's prompt was changed as often as it may be, or its changes take all the bytes that they may."""


class MediaNotFound(JobStoreError):
    """No such upload, or it has expired."""


class NotContinuable(JobStoreError):
    """The state after the job's last chunk is not kept any more."""


class NoChunkLeft(JobStoreError):
    """All chunks that the job will have have started."""


class SessionEnded(JobStoreError):
    """The job has no live session, or its client came back too late."""


class IdempotencyConflict(JobStoreError):
    """The idempotency key was used before with another request."""


class InvalidTransition(JobStoreError):
    """The state machine has no such transition from the job's state; `state` is that state."""

    def __init__(self, message: str, *, state: str) -> None:
        super().__init__(message)
        self.state = state


class NotDeadLettered(JobStoreError):
    """The job has not failed, or is no dead letter (any more)."""


class LeaseLost(JobStoreError):
    """The lease token is not the job's current one: another worker has the job, or it was cancelled."""


class ChunkGone(JobStoreError):
    """The chunk's bytes are no longer kept."""
