"""Uploads: received in bounded memory, recorded in the store, kept in the media folder."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import grpc
import structlog

from helios.v1 import video_generation_pb2 as pb
from helios_engine.errors import InvalidField
from helios_services.config import MediaConfig
from helios_services.gateway.calls.access import visible_media
from helios_services.gateway.guard.keys import caller
from helios_services.gateway.guard.refusal import Refusal, retry_info
from helios_services.jobs.records import JobSpec, Media
from helios_services.jobs.store import JobStore
from helios_services.media.artifacts import ArtifactStore

log = structlog.get_logger(__name__)
SUFFIXES = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "video/mp4": "mp4",
    "video/webm": "webm",
}
RETRY_S = 5.0


class Uploads:
    """Receives files. What they hold is looked at by the worker that uses them, in a sandbox."""

    def __init__(self, store: JobStore, folder: ArtifactStore, limits: MediaConfig) -> None:
        self._store, self._folder, self._limits = store, folder, limits

    async def receive(self, parts: AsyncIterator[pb.UploadMediaRequest]) -> Media:
        """Raises InvalidField, MediaFull, Refusal (RESOURCE_EXHAUSTED: too large a file; UNAVAILABLE: no storage)."""
        content_type = await self._content_type(parts)
        media_id = uuid4().hex
        name = f"{media_id}.{SUFFIXES[content_type]}"
        with _storage():
            arrival = tempfile.TemporaryDirectory(prefix="helios-upload-")
        with arrival as folder:
            file = Path(folder) / name
            media = Media(
                id=media_id,
                name=name,
                content_type=content_type,
                size_bytes=await self._write(parts, file),
                expire_s=0.0,
                tenant=caller.get().tenant,
            )
            expired = await self._store.add_media(media, ttl_s=self._limits.ttl_s, max_files=self._limits.max_files)
            try:
                with _storage():
                    await asyncio.to_thread(self._folder.publish, file, name)
            except BaseException:  # also when the call is cancelled: a record without a file would count as an upload
                await self._store.forget_media([name])
                raise
        await self._sweep(expired)
        return await self._store.media(media_id)

    async def check(self, spec: JobSpec) -> None:
        """Raises InvalidField unless a job's uploads are of the right kind; MediaNotFound."""
        for field, kind in (("image_id", "image/"), ("video_id", "video/")):
            media_id = getattr(spec, field)
            if media_id:
                media = await visible_media(self._store, media_id)
                if not media.content_type.startswith(kind):
                    allowed = f"media of type {kind}*, this is {media.content_type}"
                    raise InvalidField(f"params.{field}", media_id, allowed)

    async def _content_type(self, parts: AsyncIterator[pb.UploadMediaRequest]) -> str:
        first = await anext(aiter(parts), None)
        if first is None or first.WhichOneof("part") != "metadata":
            raise InvalidField("part", None if first is None else "data", "metadata, in the first message")
        content_type = first.metadata.content_type
        if content_type not in SUFFIXES:
            raise InvalidField("metadata.content_type", content_type, ", ".join(SUFFIXES))
        return content_type

    async def _write(self, parts: AsyncIterator[pb.UploadMediaRequest], file: Path) -> int:
        """Writes the parts as they arrive; how many bytes that is."""
        size, limit = 0, self._limits.max_bytes
        with _storage(), file.open("wb") as target:
            async for part in parts:
                if part.WhichOneof("part") != "data":
                    raise InvalidField("part", part.WhichOneof("part"), "data, in all messages but the first")
                size += len(part.data)
                if size > limit:
                    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
                    raise Refusal(exhausted, f"data: more than {limit:,} bytes are not allowed")
                target.write(part.data)
        if size == 0:
            raise InvalidField("data", "0 bytes", "the bytes of a file")
        return size

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


@contextmanager
def _storage() -> Iterator[None]:
    """What storage raises becomes a Refusal."""
    try:
        yield
    except OSError as error:
        log.warning("upload_not_kept", error=str(error))
        unavailable = grpc.StatusCode.UNAVAILABLE
        raise Refusal(unavailable, "the upload cannot be written to storage", retry_info(RETRY_S)) from None
