"""Downloads: read piece by piece from an object store, and so many of one key at a time."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import fsspec
import grpc
import pytest
import yaml
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from helios.v1 import video_generation_pb2 as pb
from helios_services.client import AsyncHeliosClient, Connection, HeliosError
from helios_services.config import ServiceConfig
from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.keys import new_key
from helios_services.media.artifacts import ArtifactStore
from services.gateway.conftest import Worker
from support.gateway import serving
from support.waiting import until

MIB = 1024**2
SIZE = 60 * MIB


class Bucket(AbstractFileSystem):  # type: ignore[misc]
    """An object store as s3fs is one: its files are read by ranges, 50 MiB ahead unless told otherwise."""

    protocol = "bucket"
    cachable = False
    fetched: list[tuple[int, int]]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": SIZE, "type": "file"}

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> Any:
        return Object(self, path, mode, block_size or 50 * MIB, **options)


class Object(AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        Bucket.fetched.append((start, end))
        return bytes(end - start)


@pytest.fixture
def fetched() -> list[tuple[int, int]]:
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    Bucket.fetched = []
    return Bucket.fetched


def test_what_is_read_is_what_is_fetched(fetched: list[tuple[int, int]]) -> None:
    """The attack: downloads that stop after their first byte, each of which has cost 50 MiB."""
    store = ArtifactStore("bucket://videos")
    with store.open("a.mp4", 5 * MIB) as reader:
        assert len(reader.read(MIB)) == MIB
        assert len(reader.read(MIB)) == MIB
    assert fetched == [(5 * MIB, 6 * MIB), (6 * MIB, 7 * MIB)]
    with store.open("a.mp4") as reader:
        assert len(reader.read()) == SIZE


async def test_one_key_has_so_many_downloads_at_a_time(config: ServiceConfig, worker: Worker, tmp_path: Path) -> None:
    made = {name: new_key(name, "t", frozenset({Scope.SUBMIT, Scope.READ})) for name in ("greedy", "modest")}
    file = tmp_path / "keys.yaml"
    file.write_text(yaml.safe_dump({"keys": [entry.model_dump(mode="json") for _, entry in made.values()]}))
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            serving(config, api_keys_file=str(file), max_downloads=3, max_downloads_per_key=2)
        )
        clients = {
            name: await stack.enter_async_context(
                AsyncHeliosClient(f"127.0.0.1:{gateway.port}", Connection(api_key=key))
            )
            for name, (key, _) in made.items()
        }
        job = await clients["greedy"].submit("a lake", num_frames=33)
        claim = await worker.claim()
        await worker.append(claim, 0, 10)
        await worker.publish(claim, bytes(20 * MIB), tmp_path)

        async def begun(name: str) -> Any:
            call = clients[name]._stub.DownloadVideo(pb.DownloadVideoRequest(job_id=job.id))
            await call.read()  # and no more: the file stays open
            return call

        async def quota(name: str) -> str:
            call = clients[name]._stub.DownloadVideo(pb.DownloadVideoRequest(job_id=job.id))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in call:
                    pass
            return HeliosError.of(caught.value).quota

        calls = [await begun("greedy"), await begun("greedy")]
        assert await quota("greedy") == "concurrent_downloads_per_key"
        calls.append(await begun("modest"))
        assert await quota("modest") == "concurrent_downloads"
        for call in calls:
            call.cancel()
        await until(lambda: not gateway._api._downloads._of)
        assert await asyncio.wait_for(clients["greedy"].download(job.id, tmp_path / "v.mp4"), 60) == 20 * MIB
