"""Uploads: a place is kept before the first byte, the file arrives in bounded memory and goes to the media folder."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import structlog

from helios.v1 import video_generation_pb2 as pb
from helios_engine.errors import InvalidField
from helios_services.config import MediaConfig
from helios_services.file_kinds import SUFFIXES, bare
from helios_services.gateway.calls.access import visible_media
from helios_services.gateway.guard.caller import Caller
from helios_services.gateway.guard.in_progress import InProgress
from helios_services.gateway.guard.patience import each_soon
from helios_services.gateway.guard.refusal import Code, Refusal
from helios_services.jobs.errors import StoreUnavailable
from helios_services.jobs.records import Account, JobSpec, Media
from helios_services.jobs.store import JobStore
from helios_services.media.artifacts import ArtifactStore
from helios_services.tasks import Background

log = structlog.get_logger(__name__)
RETRY_S = 5.0
ARRIVAL_S, COPY_S = 1800.0, 600.0
"""How long a file may take to arrive, and how much longer its place is kept, for its copy to the media folder."""


class Uploads:
    """Receives files. What they hold is looked at by the worker that uses them, in a sandbox."""

    def __init__(self, store: JobStore, folder: ArtifactStore, limits: MediaConfig, background: Background) -> None:
        self._store, self._folder, self._limits, self._background = store, folder, limits, background
        self._arriving = InProgress(limits.max_files, limits.max_arriving_per_key, "uploads")
        of_tenant = limits.max_arriving_bytes_per_tenant
        self._arriving_bytes = InProgress(limits.max_arriving_bytes, of_tenant, "upload bytes", "tenant")

    async def receive(self, caller: Caller, metadata: pb.MediaMetadata, data: AsyncIterator[bytes]) -> Media:
        """Raises InvalidField, MediaFull, QuotaExceeded, Refusal (RESOURCE_EXHAUSTED: too large a file, too many at a
        time; UNAVAILABLE: no storage)."""
        most_bytes = self._most_bytes(metadata)
        media_id, account = uuid4().hex, self._account(caller)
        content_type = bare(metadata.content_type)
        name = f"{media_id}.{SUFFIXES[content_type]}"
        with self._arriving.one(caller.key_id), self._arriving_bytes.some(caller.tenant, most_bytes):
            expired = await self._store.reserve_media(
                name, most_bytes, lease_s=ARRIVAL_S + COPY_S, max_files=self._limits.max_files, account=account
            )
            copies: list[asyncio.Future[None]] = []
            try:
                with _storage(), tempfile.TemporaryDirectory(prefix="helios-upload-") as folder:
                    file = Path(folder) / name
                    size_bytes = await self._write(data, file, most_bytes)
                    if metadata.HasField("size_bytes") and size_bytes < metadata.size_bytes:
                        allowed = f"the size of the file, of which {size_bytes} bytes came"
                        raise InvalidField("metadata.size_bytes", metadata.size_bytes, allowed)
                    copies.append(asyncio.ensure_future(asyncio.to_thread(self._folder.publish, file, name)))
                    await asyncio.shield(copies[0])
                media = Media(
                    id=media_id,
                    name=name,
                    content_type=content_type,
                    size_bytes=size_bytes,
                    expire_s=0.0,
                    tenant=caller.tenant,
                )
                await self._store.add_media(media, ttl_s=self._limits.ttl_s, account=account)
            except BaseException:  # also when the call is cancelled: a copy that has begun goes on in its thread
                await asyncio.shield(self._background.start(self._give_back(name, account, copies)))
                raise
        await self._sweep(expired)
        return await self._store.media(media_id)

    async def check(self, caller: Caller, spec: JobSpec) -> None:
        """Raises InvalidField unless a job's uploads are of the right kind; MediaNotFound."""
        for field, kind in (("image_id", "image/"), ("video_id", "video/")):
            media_id = getattr(spec, field)
            if media_id:
                media = await visible_media(self._store, caller, media_id)
                if not media.content_type.startswith(kind):
                    allowed = f"media of type {kind}*, this is {media.content_type}"
                    raise InvalidField(f"params.{field}", media_id, allowed)

    def _most_bytes(self, metadata: pb.MediaMetadata) -> int:
        """How large the file may be. Raises InvalidField, Refusal."""
        if bare(metadata.content_type) not in SUFFIXES:
            raise InvalidField("metadata.content_type", metadata.content_type, ", ".join(SUFFIXES))
        limit = self._limits.max_bytes
        if not metadata.HasField("size_bytes"):
            return limit
        if metadata.size_bytes < 1:
            raise InvalidField("metadata.size_bytes", metadata.size_bytes, f"an integer from 1 to {limit}")
        if metadata.size_bytes > limit:
            raise _too_large(limit)
        return metadata.size_bytes

    def _account(self, caller: Caller) -> Account:
        """Whom the file is counted for, and what that one may have."""
        account, limits = caller.account, self._limits
        return replace(
            account,
            max_uploads=account.max_uploads or limits.max_files_per_account,
            max_upload_bytes=account.max_upload_bytes or limits.max_bytes_per_account,
        )

    async def _write(self, data: AsyncIterator[bytes], file: Path, most_bytes: int) -> int:
        """Writes the parts as they arrive; how many bytes that is."""
        size = 0
        try:
            async with asyncio.timeout(ARRIVAL_S):
                with file.open("wb") as target:
                    async for part in each_soon(data):
                        size += len(part)
                        if size > most_bytes:
                            raise _too_large(most_bytes)
                        target.write(part)
        except TimeoutError:
            late = f"data: the file was not there within {ARRIVAL_S:g} s"
            raise Refusal(Code.DEADLINE_EXCEEDED, late) from None
        if size == 0:
            raise InvalidField("data", "0 bytes", "the bytes of a file")
        return size

    async def _give_back(self, name: str, account: Account, copies: list["asyncio.Future[None]"]) -> None:
        """An upload came to nothing: its file goes, then its place. What fails here happens when the place expires."""
        await asyncio.gather(*copies, return_exceptions=True)
        try:
            await asyncio.to_thread(self._folder.delete, name)
            await self._store.forget_media([name], account)
        except (OSError, StoreUnavailable) as error:
            log.warning("upload_not_given_back", name=name, error=str(error))

    async def _sweep(self, expired: list[str]) -> None:
        """Deletes files that have expired: a bounded number at each upload, more than one upload adds."""
        deleted = []
        for name in expired:
            try:
                await asyncio.to_thread(self._folder.delete, name)
                deleted.append(name)
            except OSError as error:
                log.warning("upload_not_deleted", name=name, error=str(error))
        if deleted:
            await self._store.forget_media(deleted)


def _too_large(limit: int) -> Refusal:
    return Refusal(Code.RESOURCE_EXHAUSTED, f"data: more than {limit:,} bytes are not allowed")


@contextmanager
def _storage() -> Iterator[None]:
    """What storage raises becomes a Refusal."""
    try:
        yield
    except OSError as error:
        log.warning("upload_not_kept", error=str(error))
        message = "the upload cannot be written to storage"
        raise Refusal(Code.UNAVAILABLE, message, retry_after_s=RETRY_S) from None
