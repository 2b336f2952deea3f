"""The job store: every change of a job is one Lua script in Redis, and every script may be repeated.

A reply can be lost after the change was made, so the client repeats a call that failed on the wire; each script
recognises its own repetition and answers as it did the first time.
"""

from helios_services.jobs.client_calls import ClientCalls
from helios_services.jobs.listing import JobList
from helios_services.jobs.worker_calls import WorkerCalls


class JobStore(ClientCalls, WorkerCalls, JobList):
    """Jobs in Redis. Refusals raise subclasses of JobStoreError; any call may raise StoreUnavailable or StorageFull."""

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()
