"""What becomes of jobs in a store."""

from helios_services.jobs.records import Job
from helios_services.jobs.store import JobStore
from support.waiting import until


async def ended(store: JobStore, job_id: str) -> Job:
    """The job after its end, however it ended."""

    async def over() -> bool:
        return (await store.get(job_id)).ended_s is not None

    await until(over)
    return await store.get(job_id)
