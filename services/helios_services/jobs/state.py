"""The job state machine, as data. The Lua scripts enforce it; tests hold them and the docs to this table."""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands; values are what Redis holds."""

    QUEUED = "queued"
    RUNNING = "running"
    PUBLISHING = "publishing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What moves a job from one state to another."""

    CLAIM = "claim"  # a worker takes the lease
    PUBLISH = "publish"  # all chunks are in the log
    SUCCEED = "succeed"  # the video is in the artifact store
    FAIL = "fail"  # an error that a retry cannot mend, or one attempt too many
    CANCEL = "cancel"  # the client's wish; takes the lease away
    RELEASE = "release"  # the worker gives the job back, or its lease ran out
    EXPIRE = "expire"  # its deadline, or its time in the queue, is over
    REQUEUE = "requeue"  # an operator's wish, for a dead letter


TRANSITIONS: dict[tuple[JobState, Event], JobState] = {
    (JobState.QUEUED, Event.CLAIM): JobState.RUNNING,
    (JobState.QUEUED, Event.CANCEL): JobState.CANCELLED,
    (JobState.QUEUED, Event.EXPIRE): JobState.FAILED,
    (JobState.RUNNING, Event.PUBLISH): JobState.PUBLISHING,
    (JobState.RUNNING, Event.RELEASE): JobState.QUEUED,
    (JobState.RUNNING, Event.FAIL): JobState.FAILED,
    (JobState.RUNNING, Event.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, Event.EXPIRE): JobState.FAILED,
    (JobState.PUBLISHING, Event.SUCCEED): JobState.SUCCEEDED,
    (JobState.PUBLISHING, Event.RELEASE): JobState.QUEUED,
    (JobState.PUBLISHING, Event.FAIL): JobState.FAILED,
    (JobState.PUBLISHING, Event.CANCEL): JobState.CANCELLED,
    (JobState.PUBLISHING, Event.EXPIRE): JobState.FAILED,
    (JobState.FAILED, Event.REQUEUE): JobState.QUEUED,
}

FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
LEASED = frozenset({JobState.RUNNING, JobState.PUBLISHING})

DEAD_LETTERED = frozenset({"WORKER_LOST", "GENERATION_FAILED", "PUBLISH_FAILED"})
"""Reasons of failures that are no fault of the request: such a job can be queued again and goes on where it was."""
MAX_DEAD_LETTERS = 1000
"""Dead letters that are kept for a tenant; its oldest is given up for one more."""
SUSPECT_LOSSES = 2
"""Lost workers in a row, without a finished chunk, after which a job is tried on a worker that has no other."""
