"""Uploads are each account's own: what one has, or begins, is nothing to another."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import VideoGenerationStub
from helios_services.client import AsyncHeliosClient, Connection, HeliosError
from helios_services.config import MediaConfig, ServiceConfig
from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.keys import Quotas, new_key
from helios_services.gateway.server import Gateway
from helios_services.jobs.keys import Keys
from helios_services.media.artifacts import ArtifactStore
from support.gateway import serving
from support.redis_clients import async_client
from support.waiting import until

LIMIT = 100_000
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    made = {
        name: new_key(name, name, frozenset({Scope.SUBMIT, Scope.READ}), quotas=quotas)
        for name, quotas in (("plain", Quotas()), ("other", Quotas()), ("small", Quotas(max_uploads=1)))
    }
    (tmp_path / "keys.yaml").write_text(
        yaml.safe_dump({"keys": [entry.model_dump(mode="json") for _, entry in made.values()]})
    )
    return {name: key for name, (key, _) in made.items()}


@pytest.fixture
def config(config: ServiceConfig, keys: dict[str, str], tmp_path: Path) -> ServiceConfig:
    media = MediaConfig(
        max_bytes=LIMIT,
        max_files=1000,
        max_files_per_account=3,
        max_bytes_per_account=2 * LIMIT + 10,
        max_arriving_per_key=2,
    )
    gateway = config.gateway.model_copy(update={"api_keys_file": str(tmp_path / "keys.yaml")})
    return config.model_copy(update={"media": media, "gateway": gateway})


Clients = Callable[[str], AsyncHeliosClient]


@pytest.fixture
async def clients(gateway: Gateway, keys: dict[str, str]) -> AsyncIterator[Clients]:
    made = {name: AsyncHeliosClient(f"127.0.0.1:{gateway.port}", Connection(api_key=key)) for name, key in keys.items()}
    yield made.__getitem__
    for client in made.values():
        await client.close()


@pytest.fixture
async def stub(gateway: Gateway) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        yield VideoGenerationStub(channel)


def picture(folder: Path, size: int) -> Path:
    file = folder / f"{size}.png"
    file.write_bytes(bytes(size))
    return file


async def refused(call: Any) -> str:
    """The name of the limit that an upload meets."""
    with pytest.raises(HeliosError) as caught:
        await call
    assert caught.value.code is EXHAUSTED
    return caught.value.quota


class Begun:
    """An upload that says what it is, and sends its bytes when it is told to."""

    def __init__(self, stub: Any, key: str, size_bytes: int | None = None) -> None:
        self._metadata = pb.MediaMetadata(content_type="image/png", size_bytes=size_bytes)
        self._more: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.call = stub.UploadMedia(self._parts(), metadata=(("authorization", f"Bearer {key}"),))

    async def _parts(self) -> AsyncIterator[pb.UploadMediaRequest]:
        yield pb.UploadMediaRequest(metadata=self._metadata)
        while (data := await self._more.get()) is not None:
            yield pb.UploadMediaRequest(data=data)

    def send(self, data: bytes | None) -> None:
        self._more.put_nowait(data)


async def test_files_and_bytes_are_counted_for_each_account(clients: Clients, tmp_path: Path) -> None:
    plain, other, small = clients("plain"), clients("other"), clients("small")
    for _ in range(3):
        await plain.upload(picture(tmp_path, 10))
    assert await refused(plain.upload(picture(tmp_path, 10))) == "max_uploads"
    await small.upload(picture(tmp_path, 10))
    assert await refused(small.upload(picture(tmp_path, 10))) == "max_uploads"
    for _ in range(2):
        await other.upload(picture(tmp_path, LIMIT))
    assert await refused(other.upload(picture(tmp_path, 11))) == "max_upload_bytes"
    await other.upload(picture(tmp_path, 10))


async def test_a_place_is_kept_before_the_first_byte_and_given_back(
    config: ServiceConfig, clients: Clients, stub: Any, keys: dict[str, str], tmp_path: Path
) -> None:
    """An upload of unknown size counts as the largest that may be, until the file is there."""
    plain = clients("plain")
    begun = [Begun(stub, keys["plain"]) for _ in range(2)]
    async with async_client(config.redis.url) as redis:
        counted = Keys(config.redis.namespace).of("upload_bytes", "plain")

        async def taken() -> int:
            return int(await redis.hget(counted, ":total") or 0)

        async def of_both() -> bool:
            return await taken() == 2 * LIMIT

        await until(of_both)
        assert await refused(plain.upload(picture(tmp_path, 11))) == "concurrent_uploads_per_key"
        await clients("other").upload(picture(tmp_path, 11))
        begun[0].send(bytes(10))
        begun[0].send(None)
        await begun[0].call
        assert await taken() == LIMIT + 10
        begun[1].call.cancel()

        async def of_one() -> bool:
            return await taken() == 10

        await until(of_one)
        begun = [Begun(stub, keys["plain"], size_bytes=LIMIT), Begun(stub, keys["plain"], size_bytes=LIMIT)]

        async def of_three() -> bool:
            return await taken() == 2 * LIMIT + 10

        await until(of_three)
        for each in begun:
            each.send(bytes(LIMIT + 1))
            with pytest.raises(grpc.aio.AioRpcError, match="more than 100,000 bytes"):
                await each.call
        await until(of_one)


async def test_bytes_that_arrive_are_bounded_for_each_tenant_and_for_all(
    config: ServiceConfig, keys: dict[str, str]
) -> None:
    """The attack: files that are begun and never end, until nobody else has room in the temporary folder."""
    limits = {"max_arriving_bytes": 2 * LIMIT + 50_000, "max_arriving_bytes_per_tenant": LIMIT + 50_000}
    media = config.media.model_copy(update=limits)
    async with (
        serving(config.model_copy(update={"media": media})) as gateway,
        grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel,
    ):
        stub: Any = VideoGenerationStub(channel)

        async def held(key: str, size_bytes: int | None) -> Begun:
            upload = Begun(stub, keys[key], size_bytes)
            upload.send(bytes(10))
            before = gateway._api._uploads._arriving_bytes._of.total()
            await until(lambda: gateway._api._uploads._arriving_bytes._of.total() > before or upload.call.done())
            return upload

        async def quota(key: str, size_bytes: int) -> str:
            upload = Begun(stub, keys[key], size_bytes)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await upload.call
            return HeliosError.of(caught.value).quota

        first = await held("plain", None)  # of an unknown size: the largest counts
        assert await quota("plain", 50_001) == "concurrent_upload_bytes_per_tenant"
        other = await held("other", LIMIT)
        assert await quota("small", 50_001) == "concurrent_upload_bytes"
        first.call.cancel()
        await until(lambda: gateway._api._uploads._arriving_bytes._of.total() == LIMIT)
        again = await held("plain", 50_001)
        for upload in (other, again):
            upload.call.cancel()


@pytest.mark.parametrize(
    ("said", "sent", "code", "named"),
    [
        (LIMIT + 1, 0, EXHAUSTED, "more than 100,000 bytes"),
        (0, 0, grpc.StatusCode.INVALID_ARGUMENT, "metadata.size_bytes: 0"),
        (-1, 0, grpc.StatusCode.INVALID_ARGUMENT, "metadata.size_bytes: -1"),
        (10, 11, EXHAUSTED, "more than 10 bytes"),
        (10, 9, grpc.StatusCode.INVALID_ARGUMENT, "metadata.size_bytes: 10 is not allowed; allowed: the size"),
    ],
)
async def test_a_size_that_is_not_the_files_is_refused(
    stub: Any, keys: dict[str, str], said: int, sent: int, code: grpc.StatusCode, named: str
) -> None:
    upload = Begun(stub, keys["plain"], size_bytes=said)
    upload.send(bytes(sent))
    upload.send(None)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await upload.call
    assert caught.value.code() is code
    assert named in (caught.value.details() or "")


async def test_an_upload_that_is_cancelled_while_it_is_copied_leaves_nothing(
    config: ServiceConfig, stub: Any, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that has begun cannot be stopped; its file goes once it is there."""
    publish, copying, go_on = ArtifactStore.publish, threading.Event(), threading.Event()

    def slow(self: ArtifactStore, file: Path, name: str) -> None:
        content = file.read_bytes()
        copying.set()
        assert go_on.wait(60)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)  # as a copy whose source was opened before the folder went
        publish(self, file, name)

    monkeypatch.setattr(ArtifactStore, "publish", slow)
    upload = Begun(stub, keys["plain"], size_bytes=10)
    upload.send(bytes(10))
    upload.send(None)
    await asyncio.to_thread(copying.wait, 60)
    upload.call.cancel()
    await asyncio.sleep(0.1)
    go_on.set()
    async with async_client(config.redis.url) as redis:
        index = Keys(config.redis.namespace).of("media_index")

        async def forgotten() -> bool:
            return not await redis.zcard(index)

        await until(forgotten)
    assert await asyncio.to_thread(lambda: list(Path(config.uploads).iterdir())) == []


async def test_a_place_whose_gateway_died_is_free_in_time(
    config: ServiceConfig, clients: Clients, stub: Any, keys: dict[str, str], tmp_path: Path
) -> None:
    """Its name is known from the start, so that whatever was copied of it goes."""
    left = Path(config.uploads) / "0123.png"
    left.parent.mkdir(parents=True)
    for name in ("0123.png", "0123.png.partial"):
        (left.parent / name).write_bytes(b"x")
    of = Keys(config.redis.namespace).of
    async with async_client(config.redis.url) as redis:  # three places of half an hour ago
        for name in ("0123.png", "0124.png", "0125.png"):
            await redis.zadd(of("uploads", "plain"), {name: 1})
            await redis.zadd(of("media_index"), {name: 1})
            await redis.hset(of("upload_bytes", "plain"), name, "5")
        await redis.hset(of("upload_bytes", "plain"), ":total", "15")
        await clients("plain").upload(picture(tmp_path, 10))
        assert await redis.hgetall(of("upload_bytes", "plain")) != {}
        assert await redis.hget(of("upload_bytes", "plain"), ":total") == b"10"
        assert await redis.zcard(of("media_index")) == 1
    assert not left.exists()
    assert len(list(left.parent.iterdir())) == 1
