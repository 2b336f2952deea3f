"""How an attempt at a job ends before the video is there."""

from helios_services.jobs.records import JobFailure


class JobFailed(Exception):
    """The job cannot be finished. Carries what the client is told."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.failure = JobFailure(reason=reason, message=message)


class Released(Exception):
    """The job is to be released, through no fault of its own: a stage was gone for too long, or the worker drains."""


class SetAside(Exception):
    """The job has given way to another or is parked. The store has it again."""


class NothingWanted(Exception):
    """The job was stopped before its first chunk."""
