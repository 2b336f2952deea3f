"""What a job can start from: uploads, other jobs; and the models' options."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import VideoGenerationStub
from helios_services.client import AsyncHeliosClient, HeliosError
from helios_services.config import MediaConfig, ModelConfig, ServiceConfig
from helios_services.gateway.calls import uploads
from helios_services.gateway.server import Gateway
from helios_services.media.artifacts import ArtifactStore
from services.gateway.conftest import Worker
from support.gateway import serving
from support.redis_clients import async_client

PNG = b"\x89PNG\r\n\x1a\n" + bytes(5000)


@pytest.fixture
def config(config: ServiceConfig) -> ServiceConfig:
    media = MediaConfig(max_bytes=1_000_000, max_files=3)
    return config.model_copy(update={"media": media})


def parts(content_type: str | None, *data: bytes) -> Iterator[pb.UploadMediaRequest]:
    if content_type is not None:
        yield pb.UploadMediaRequest(metadata=pb.MediaMetadata(content_type=content_type))
    for piece in data:
        yield pb.UploadMediaRequest(data=piece)


async def refused(gateway: Gateway, messages: Iterator[pb.UploadMediaRequest]) -> tuple[grpc.StatusCode, str]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub: Any = VideoGenerationStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.UploadMedia(messages)
        return caught.value.code(), caught.value.details() or ""


async def test_an_upload_is_kept_and_can_be_named_by_jobs(
    client: AsyncHeliosClient, config: ServiceConfig, worker: Worker, tmp_path: Path
) -> None:
    file = tmp_path / "cat.png"
    await asyncio.to_thread(file.write_bytes, PNG)
    media = await client.upload(file)
    assert (media.content_type, media.size_bytes) == ("image/png", len(PNG))
    kept = Path(config.uploads) / f"{media.id}.png"
    assert await asyncio.to_thread(kept.read_bytes) == PNG
    job = await client.submit("a lake", image_id=media.id)
    assert job.params.image_id == media.id
    assert (await worker.claim()).job.spec.image_id == media.id
    later = await worker.store.media(media.id)
    assert later.expire_s > media.expire_time.ToMicroseconds() / 1e6 + 86400  # kept for the job
    with pytest.raises(HeliosError, match=r"params.video_id: .* allowed: media of type video/\*, this is image/png"):
        await client.submit("a lake", video_id=media.id)
    with pytest.raises(HeliosError, match="media 'nope' does not exist") as caught:
        await client.submit("a lake", image_id="nope")
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("messages", "code", "named"),
    [
        (("image/tiff", b"x"), grpc.StatusCode.INVALID_ARGUMENT, "metadata.content_type: 'image/tiff'"),
        ((None, b"x"), grpc.StatusCode.INVALID_ARGUMENT, "allowed: metadata, in the first message"),
        (("image/png",), grpc.StatusCode.INVALID_ARGUMENT, "data: '0 bytes'"),
        (("image/png", *[bytes(200_000)] * 6), grpc.StatusCode.RESOURCE_EXHAUSTED, "more than 1,000,000 bytes"),
    ],
)
async def test_bad_uploads(
    gateway: Gateway, client: AsyncHeliosClient, messages: Any, code: grpc.StatusCode, named: str, tmp_path: Path
) -> None:
    answered, message = await refused(gateway, parts(*messages))
    assert (answered, named in message) == (code, True), message
    file = tmp_path / "cat.png"
    await asyncio.to_thread(file.write_bytes, PNG)
    assert (await client.upload(file)).size_bytes == len(PNG)


async def test_uploads_are_bounded_and_expired_ones_are_deleted(
    client: AsyncHeliosClient, config: ServiceConfig, tmp_path: Path
) -> None:
    file = tmp_path / "cat.png"
    await asyncio.to_thread(file.write_bytes, PNG)
    first = await client.upload(file)
    for _ in range(2):
        await client.upload(file)
    with pytest.raises(HeliosError, match="3 uploads are kept") as caught:
        await client.upload(file)
    assert (caught.value.code, caught.value.retry_after_s) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 60.0)
    async with async_client(config.redis.url) as redis:
        root = f"helios:{{{config.redis.namespace}}}:"
        await redis.zadd(f"{root}media_index", {f"{first.id}.png": 1.0})  # as if it had expired
        await redis.delete(f"{root}media:{first.id}")
    fourth = await client.upload(file)
    names = {path.name for path in Path(config.uploads).iterdir()}
    assert f"{first.id}.png" not in names
    assert f"{fourth.id}.png" in names
    assert len(names) == 3


async def test_a_job_can_be_continued_once_it_has_succeeded(
    client: AsyncHeliosClient, worker: Worker, tmp_path: Path
) -> None:
    first = await client.submit("a lake", num_frames=33, height=128, width=192, keep_first_frame=False)
    with pytest.raises(HeliosError, match="is queued, not succeeded") as caught:
        await client.submit("a sea", continue_from=first.id)
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    claim = await worker.claim()
    await worker.append(claim, 0)
    await worker.publish(claim, b"video", tmp_path)
    second = await client.submit("a sea", continue_from=first.id, num_frames=66)
    assert (second.params.height, second.params.width, second.params.keep_first_frame) == (128, 192, False)
    assert (second.params.continue_from, second.chunks_total) == (first.id, 2)
    assert (await worker.claim()).checkpoint == b"state"
    with pytest.raises(HeliosError, match=f"params.height: 256 is not allowed; allowed: 128, that of job '{first.id}'"):
        await client.submit("a sea", continue_from=first.id, height=256)
    with pytest.raises(HeliosError, match="'nope' does not exist"):
        await client.submit("a sea", continue_from="nope")
    async with async_client(worker.redis.url) as redis:
        await redis.delete(f"helios:{{{worker.redis.namespace}}}:checkpoint:{first.id}")
    with pytest.raises(HeliosError, match="can no longer be continued") as caught:
        await client.submit("a sea", continue_from=first.id)
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert (await client.submit("a lake")).chunks_total == 4


@pytest.mark.parametrize("variant", ["base", "mid", "distilled"])
async def test_models_say_what_they_take(config: ServiceConfig, variant: Any) -> None:
    model = ModelConfig(name="m", variant=variant, loras={"style": "/tmp/style.safetensors"})
    async with (
        serving(config.model_copy(update={"model": model})) as gateway,
        AsyncHeliosClient(f"127.0.0.1:{gateway.port}") as client,
    ):
        (described,) = await client.models()
        assert (described.variant, list(described.loras)) == (variant, ["style"])
        assert described.size_multiple == (16 if variant == "base" else 64)
        size = {"height": described.size_multiple * 3, "width": described.size_multiple * 2}
        options: dict[str, Any] = {"base": {"num_inference_steps": 20}, "mid": {"zero_steps": 2}}.get(variant, {})
        style = [pb.LoraWeight(name="style", scale=0.5)]
        job = await client.submit("a lake", **size, **options, loras=style, shift=2.0, fps=16)
        assert job.params.guidance_scale == (1.0 if variant == "distilled" else 5.0)
        assert (job.params.shift, list(job.params.loras)) == (2.0, style)
        for name, value in options.items():
            assert getattr(job.params, name) == value
        with pytest.raises(HeliosError, match=r"params\.loras"):
            await client.submit("a lake", loras=[pb.LoraWeight(name="other")])


class FullDisk:
    """A folder of which every file is on a disk that is full."""

    def __init__(self, _: str) -> None: ...

    def __truediv__(self, _: str) -> Path:
        return Path("/dev/full")


@pytest.mark.parametrize("where", ["the media folder", "on arrival", "before it"])
async def test_an_upload_that_cannot_be_kept_does_not_count(
    client: AsyncHeliosClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    file = tmp_path / "cat.png"
    await asyncio.to_thread(file.write_bytes, PNG)

    def full(*_: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        if where == "on arrival":
            patch.setattr(uploads, "Path", FullDisk)
        elif where == "before it":
            patch.setattr(tempfile, "mkdtemp", full)
        else:
            patch.setattr(ArtifactStore, "publish", full)
        for _ in range(5):  # more than may be kept
            with pytest.raises(HeliosError, match="cannot be written") as caught:
                await client.upload(file)
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert (await client.upload(file)).size_bytes == len(PNG)
