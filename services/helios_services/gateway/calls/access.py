"""The store as one caller sees it: another tenant's jobs and uploads do not exist."""

from helios_services.gateway.guard.caller import Caller
from helios_services.jobs.errors import JobNotFound, MediaNotFound
from helios_services.jobs.reader import JobReader
from helios_services.jobs.records import Job, Media


async def visible_job(store: JobReader, caller: Caller, job_id: str) -> Job:
    """Raises JobNotFound, also for what belongs to others."""
    job = await store.get(job_id)
    if not caller.may_see_job(job.id, job.spec.tenant):
        raise JobNotFound(f"job {job_id!r} does not exist or has expired")
    return job


async def visible_media(store: JobReader, caller: Caller, media_id: str) -> Media:
    """Raises MediaNotFound, also for what belongs to others."""
    media = await store.media(media_id)
    if not caller.may_see(media.tenant):
        raise MediaNotFound(f"media {media_id!r} does not exist or has expired")
    return media
