"""Makes one file of a job's fragments and puts it into the artifact store."""

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from helios_services.deployments.dispatch.attempt import AGAIN, Attempt
from helios_services.deployments.dispatch.endings import JobFailed
from helios_services.jobs.errors import JobNotFound, LeaseLost
from helios_services.jobs.state import JobState
from helios_services.media.remux import remux

WITHDRAWALS: set["asyncio.Task[None]"] = set()
"""In progress; asyncio itself keeps no task alive."""


class Publication:
    """The end of a job whose chunks are all in the store."""

    def __init__(self, attempt: Attempt, chunks: int) -> None:
        self._attempt, self._chunks = attempt, chunks
        self._job, self._lease, self._store = attempt.job, attempt.lease, attempt.store
        self._name = f"{attempt.job.id}.mp4"

    async def run(self) -> None:
        """Publishes the video; the job has then succeeded. Raises JobFailed and LeaseLost."""
        await self._attempt.durably(lambda: self._store.begin_publish(self._lease))
        if (await self._attempt.durably(lambda: self._store.get(self._job.id))).first_chunk > 0:
            # an open-ended job whose first chunks are gone: it was there to be watched
            await self._succeed("", 0)
            return
        size = await self._uploaded_with_patience()
        try:
            await self._succeed(self._name, size)
        except LeaseLost:
            await self._withdraw()
            raise

    async def _succeed(self, artifact: str, size: int) -> None:
        await self._attempt.durably(lambda: self._store.succeed(self._lease, artifact=artifact, video_bytes=size))
        self._attempt.log.info("job_succeeded", video_bytes=size)

    async def _uploaded_with_patience(self) -> int:
        attempts = self._attempt.config.dispatcher.publish_attempts
        for attempt in range(1, attempts + 1):
            try:
                return await self._uploaded()
            except OSError as error:
                self._attempt.log.warning("publish_failed", attempt=attempt, error=str(error))
                if attempt < attempts:
                    await asyncio.sleep(AGAIN.wait_s(attempt))
        raise JobFailed("PUBLISH_FAILED", "the video could not be written to the artifact store")

    async def _uploaded(self) -> int:
        """The video's bytes. A thread cannot be stopped: when this is cancelled, the file goes once it is there."""
        loop = asyncio.get_running_loop()
        upload = asyncio.ensure_future(asyncio.to_thread(self._write, loop))
        try:
            return await asyncio.shield(upload)
        except asyncio.CancelledError:
            withdrawal = asyncio.create_task(self._withdraw(upload))
            WITHDRAWALS.add(withdrawal)
            withdrawal.add_done_callback(WITHDRAWALS.discard)
            raise

    async def _withdraw(self, upload: "asyncio.Future[int] | None" = None) -> None:
        """Deletes the video, after its upload, of a job that has ended without one."""
        if upload is not None:
            await asyncio.wait({upload})
        with contextlib.suppress(JobNotFound, OSError):
            job = await self._attempt.durably(lambda: self._store.get(self._job.id))
            if job.ended_s is not None and job.state is not JobState.SUCCEEDED:
                await asyncio.to_thread(self._attempt.artifacts.delete, self._name)
                self._attempt.log.info("video_withdrawn")

    def _write(self, loop: asyncio.AbstractEventLoop) -> int:
        """On a thread: one fragment in memory at a time."""

        def fetch(read: Callable[[], Awaitable[bytes]]) -> bytes:
            return asyncio.run_coroutine_threadsafe(self._attempt.durably(read), loop).result()

        def pieces() -> Iterator[bytes]:
            yield fetch(lambda: self._store.init_segment(self._job.id))
            for index in range(self._chunks):
                yield fetch(lambda index=index: self._store.fragment(self._job.id, index))  # type: ignore[misc]

        with tempfile.TemporaryDirectory(prefix="helios-") as folder:
            file = Path(folder) / self._name
            size = remux(pieces(), file)
            self._attempt.artifacts.publish(file, self._name)
        return size
