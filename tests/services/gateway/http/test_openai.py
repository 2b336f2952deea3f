"""The `openai` package as it comes from PyPI, and ffmpeg as a player, against a service that makes real video."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import openai
import pytest

from helios_services.config import ServiceConfig
from helios_services.deployments.dispatch.dispatcher import Dispatcher
from helios_services.gateway.server import Gateway
from support.stages import QuickStages
from support.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
SMALL = {"helios": {"params": {"seed": 3, "pyramid_steps": [1, 1, 1]}}}


class GatedStages(QuickStages):
    """Makes no chunk from `gated` on before it is let."""

    def __init__(self) -> None:
        self.gated, self.go = 10**9, asyncio.Event()

    async def reach(self, point: str) -> None:
        """See QuickStages."""
        name, _, index = point.partition(" ")
        if name == "denoise" and int(index) >= self.gated:
            await self.go.wait()


@pytest.fixture
async def stages(config: ServiceConfig, gateway: Gateway) -> AsyncIterator[GatedStages]:
    """Those of a dispatcher that works beside the gateway."""
    stages = GatedStages()
    dispatcher = Dispatcher(config, stages)
    yield stages
    stages.go.set()
    await dispatcher.drain()


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{gateway.http_port}/v1", api_key="none") as client:
        yield client


@pytest.mark.usefixtures("stages")
async def test_create_poll_download_list_delete(client: openai.AsyncOpenAI, tmp_path: Path) -> None:
    video = await client.videos.create_and_poll(prompt="a lake", seconds="2", size="64x64", extra_body=SMALL)  # type: ignore[arg-type]
    assert (video.status, video.progress, video.error) == ("completed", 100, None)
    assert (video.seconds, video.size, video.prompt) == ("2.75", "64x64", "a lake")
    content = await client.videos.download_content(video.id)
    file = tmp_path / "lake.mp4"
    await asyncio.to_thread(file.write_bytes, content.read())
    assert frames(file) == 66
    second = await client.videos.create(prompt="a sea", seconds="1", size="64x64", extra_body=SMALL)  # type: ignore[arg-type]
    assert [each.id async for each in client.videos.list(limit=1)] == [second.id, video.id]
    remix = await client.videos.remix(video.id, prompt="a pond")
    assert remix.remixed_from_video_id == video.id
    assert (await client.videos.delete(video.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.videos.retrieve(video.id)
    assert video.id not in [each.id async for each in client.videos.list(order="asc")]
    assert [model.id async for model in client.models.list()] == [video.model]


@pytest.mark.usefixtures("stages")
async def test_a_picture_goes_with_it(client: openai.AsyncOpenAI) -> None:
    picture = ("cat.png", b"\x89PNG\r\n\x1a\n" + b"x" * 100, "image/png")
    video = await client.videos.create(prompt="a cat", input_reference=picture, size="64x64", extra_body=SMALL)  # type: ignore[arg-type]
    assert (await client.videos.poll(video.id)).status == "completed"


async def test_errors_are_those_that_the_package_knows(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="seconds: 'x' is not allowed") as caught:
        await client.videos.create(prompt="a lake", seconds="x")  # type: ignore[arg-type]
    assert (caught.value.param, caught.value.code) == ("seconds", "invalid_argument")


def frames(file: Path | str) -> int:
    """Frames that ffprobe decodes."""
    ffprobe = shutil.which("ffprobe")
    if ffprobe is None:
        pytest.skip("ffprobe is not installed")
    command = (ffprobe, "-v", "error", "-count_frames", "-select_streams", "v")
    shown = ("-show_entries", "stream=nb_read_frames", "-of", "csv=p=0")
    return int(subprocess.run([*command, *shown, str(file)], capture_output=True, text=True, check=True).stdout)


async def test_ffmpeg_plays_a_playlist_while_it_grows(gateway: Gateway, stages: GatedStages, tmp_path: Path) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("ffmpeg is not installed")
    stages.gated = 1
    base = f"http://127.0.0.1:{gateway.http_port}/v1/videos"
    async with httpx.AsyncClient(timeout=60) as http:
        body = {"prompt": "a lake", "size": "64x64", "seconds": 4.125} | SMALL
        video_id = (await http.post(base, json=body)).json()["id"]
        source = ("-nostdin", "-v", "error", "-threads", "1", "-i", f"{base}/{video_id}/hls/index.m3u8")
        player = await asyncio.create_subprocess_exec(
            ffmpeg, *source, "-flush_packets", "1", "-f", "framemd5", "-", stdout=asyncio.subprocess.PIPE
        )
        assert player.stdout is not None
        try:
            lines = [line async for line in _pictures(player.stdout, 5)]  # of the first chunk: there is no second
            stages.go.set()
            lines += [line async for line in _pictures(player.stdout, 94)]
            assert await player.wait() == 0
        finally:
            with suppress(ProcessLookupError):
                player.kill()
            await player.wait()
        await until(lambda: _completed(http, f"{base}/{video_id}"))
        content = (await http.get(f"{base}/{video_id}/content")).content
    file = tmp_path / "video.mp4"
    await asyncio.to_thread(file.write_bytes, content)
    whole = await asyncio.to_thread(
        subprocess.run, [ffmpeg, "-v", "error", "-i", str(file), "-f", "framemd5", "-"], capture_output=True, check=True
    )
    expected = [line.rpartition(b",")[2].strip() for line in whole.stdout.splitlines() if not line.startswith(b"#")]
    assert lines == expected
    assert len(set(lines)) == 3  # a shade for each chunk


async def _completed(http: httpx.AsyncClient, url: str) -> bool:
    return bool((await http.get(url)).json()["status"] == "completed")


async def _pictures(output: asyncio.StreamReader, count: int) -> AsyncIterator[bytes]:
    """The digests of so many frames, as the player comes to them."""
    while count:
        line = await output.readline()
        assert line, "the player ended"
        if not line.startswith(b"#"):
            count -= 1
            yield line.rpartition(b",")[2].strip()
