"""Every task and the interactive path through the whole service: gateway, Redis, Ray, the model, H.264."""

import asyncio
import io
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import av
import grpc
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import VideoGenerationStub
from helios_services.client import AsyncHeliosClient, HeliosClient, HeliosError
from helios_services.config import load_config
from helios_services.stack import running_stack
from services.whole.collector import Collector, collecting
from support.local_ray import on_ray

SIZE: dict[str, Any] = {"height": 64, "width": 64, "pyramid_steps": [1, 1, 1], "seed": 5}
Frames = NDArray[np.uint8]
TRACE = [
    "GenerateVideo",
    *["GenerateVideo/deliver"] * 2,
    "GenerateVideo/queue",
    "GenerateVideo/job",
    *["GenerateVideo/job/chunk"] * 2,
    "GenerateVideo/job/chunk/text",
    *["GenerateVideo/job/chunk/denoise"] * 2,
    *["GenerateVideo/job/chunk/decode"] * 2,
    "GenerateVideo/job/publish",
]
"""The spans of a job of two chunks, each below the ones it is part of."""


@pytest.fixture(scope="module")
def style(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the tiny model."""
    generator = torch.Generator().manual_seed(1)
    layer, shapes = "transformer.blocks.0.attn1.to_q", {"lora_A": (4, 48), "lora_B": (48, 4)}
    tensors = {f"{layer}.{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    file = tmp_path_factory.mktemp("loras") / "style.safetensors"
    save_file(tensors, file)
    return file


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def address(
    checkpoint: Path, style: Path, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A running service on this machine."""
    file = tmp_path_factory.mktemp("config") / "helios.yaml"
    file.write_text(f"model: {{loras: {{style: {style}}}}}\n")
    config = load_config(
        file,
        environ={
            "HELIOS_STATE_DIR": str(tmp_path_factory.mktemp("state")),
            "HELIOS_MODEL__CHECKPOINT": str(checkpoint),
            "HELIOS_MODEL__DTYPE": "float32",
            "HELIOS_GATEWAY__PORT": "0",
            "HELIOS_GATEWAY__HTTP_PORT": "0",
            "HELIOS_GATEWAY__METRICS_PORT": "0",
            "HELIOS_DISPATCHER__METRICS_PORT": "0",
            "HELIOS_LOG_LEVEL": "warning",
            "HELIOS_TRACING__OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
            "HELIOS_TRACING__EXPORT_DELAY_S": "0.2",
            "HELIOS_JOBS__SESSION_GRACE_S": "60",
        },
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
        with on_ray(lambda: running_stack(config)) as addresses:
            yield addresses.grpc


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[HeliosClient]:
    with HeliosClient(address) as client:
        yield client


def video(client: HeliosClient, prompt: str = "a lake", **params: Any) -> tuple[str, Frames]:
    """The id and the frames of a job that is run to its end."""
    job = client.submit(prompt, **SIZE | {"num_frames": 33} | params)
    data = b"".join(segment.data for segment in client.stream(job.id))
    *_, ended = client.watch(job.id)
    assert ended.state == pb.JOB_STATE_SUCCEEDED
    return job.id, decoded(data)


def decoded(data: bytes) -> Frames:
    with av.open(io.BytesIO(data)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def difference(one: Frames, other: Frames) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def test_image_to_video_and_video_to_video(client: HeliosClient, tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (96, 150, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "cat.webp", lossless=True)
    plain = video(client)[1]
    image = client.upload(tmp_path / "cat.webp")
    job_id, animated = video(client, image_id=image.id)
    assert difference(animated, plain) > 2
    assert np.array_equal(video(client, image_id=image.id)[1], animated)
    (info,) = [segment.info for segment in client.stream(job_id) if segment.info is not None]
    assert info.stages.condition.ToMicroseconds() > 0
    client.download(job_id, tmp_path / "clip.mp4")
    clip = client.upload(tmp_path / "clip.mp4")
    assert difference(video(client, video_id=clip.id)[1], plain) > 2


def test_an_adapter_is_chosen_per_request(client: HeliosClient) -> None:
    plain = video(client)[1]
    styled = video(client, loras=[pb.LoraWeight(name="style", scale=3.0)])[1]
    assert difference(styled, plain) > 1
    assert np.array_equal(video(client)[1], plain)


async def test_the_examples_of_the_documentation(
    address: str, client: HeliosClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (96, 150, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[3] / "docs/api.md").read_text()
    examples = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    settings = {
        '"height": 384, "width": 640': '"height": 64, "width": 64',
        "localhost:50051": address,
        '{"num_frames": 330}': '{"num_frames": 14_520}',  # it must still run when the update and the cancellation come
    }
    for published, here in settings.items():
        assert examples.count(published) == 1
        examples = examples.replace(published, here)
    names: dict[str, Any] = {"asyncio": asyncio}
    await asyncio.to_thread(exec, examples, names)
    async with asyncio.timeout(200):
        live = await names["live"]()
    assert len(decoded(live)) >= 66
    assert len(decoded((tmp_path / "lake.mp4").read_bytes())) == 66
    *_, ended = await asyncio.to_thread(lambda: list(client.watch(names["job"].id)))
    assert ended.state == pb.JOB_STATE_SUCCEEDED
    assert [lora.name for lora in ended.params.loras] == ["style"]
    names["client"].close()


def test_one_trace_from_the_call_to_the_delivery_of_every_chunk(address: str, collector: Collector) -> None:
    trace_id, caller_span = "ab" * 16, "cd" * 8
    metadata = (("traceparent", f"00-{trace_id}-{caller_span}-01"),)
    params = pb.GenerationParams(prompt="a traced lake", **SIZE, num_frames=66)
    request = pb.GenerateVideoRequest(job=pb.SubmitJobRequest(params=params))
    with grpc.insecure_channel(address) as channel:
        *_, last = VideoGenerationStub(channel).GenerateVideo(request, metadata=metadata)
    assert last.job.state == pb.JOB_STATE_SUCCEEDED
    found = collector.trace(trace_id, lambda spans: len(spans) >= len(TRACE))
    by_id = {span.span_id: span for _, span in found}

    def path(span: Any) -> list[str]:
        above = by_id.get(span.parent_span_id)
        return [span.name] if above is None else [*path(above), span.name]

    paths = sorted("/".join(path(span)) for _, span in found)
    assert paths == sorted(TRACE)
    services = {span.name: service for service, span in found}
    assert (services["GenerateVideo"], services["job"]) == ("helios-gateway", "helios-dispatcher")
    (top,) = [span for _, span in found if span.name == "GenerateVideo"]
    assert top.parent_span_id.hex() == caller_span
    assert "traced lake" not in str([span for _, span in found])  # prompts stay out of traces


def test_a_file_that_is_no_picture_fails_its_job_and_harms_no_worker(client: HeliosClient, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    (tmp_path / "liar.jpg").write_bytes(b"<html>" + bytes(1000))
    for name, reason in (("broken.png", "MEDIA_UNREADABLE"), ("liar.jpg", "MEDIA_TYPE_MISMATCH")):
        media = client.upload(tmp_path / name)
        job = client.submit("a lake", image_id=media.id, **SIZE)
        with pytest.raises(HeliosError) as caught:
            list(client.stream(job.id))
        assert caught.value.reason == reason
    assert len(video(client)[1]) == 33


def test_a_continued_job_is_the_rest_of_a_longer_one(client: HeliosClient) -> None:
    _, whole = video(client, num_frames=99)
    first, start = video(client, num_frames=33)
    second, middle = video(client, continue_from=first)
    _, end = video(client, continue_from=second, seed=77)  # random numbers go on where the other job's ended
    assert np.array_equal(np.concatenate([start, middle, end]), whole)


def test_a_prompt_update_is_replayed_as_a_schedule(client: HeliosClient) -> None:
    for _ in range(5):
        job = client.submit("a lake", **SIZE, num_frames=132)
        stream = client.stream(job.id)
        pieces = [next(stream).data, next(stream).data]  # the init segment and the first chunk
        try:
            chunk = client.update_prompt(job.id, "red snow in the city", interpolation_chunks=2)
        except HeliosError as error:
            if error.code is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            continue  # too late: all of its chunks have started
        finally:
            pieces += [segment.data for segment in stream]
        break
    else:
        pytest.fail("every update came too late")
    assert 0 < chunk < 4
    (update,) = client.get(job.id).prompt_updates
    assert (update.chunk_index, update.prompt, update.interpolation_chunks) == (chunk, "red snow in the city", 2)
    interactive = decoded(b"".join(pieces))
    replayed = video(client, num_frames=132, prompt_schedule=[update])[1]
    plain = video(client, num_frames=132)[1]
    assert np.array_equal(interactive, replayed)
    assert np.array_equal(interactive[: 33 * chunk], plain[: 33 * chunk])
    if chunk < 3:  # with two chunks to take over, the first of them is not changed yet
        assert not np.array_equal(interactive[33 * (chunk + 1) :], plain[33 * (chunk + 1) :])


async def test_a_live_session(address: str) -> None:
    commands: asyncio.Queue[pb.InteractRequest | None] = asyncio.Queue()

    async def sent() -> AsyncIterator[pb.InteractRequest]:
        while (command := await commands.get()) is not None:
            yield command

    params = pb.GenerationParams(prompt="a lake", open_ended=True, **SIZE)
    commands.put_nowait(pb.InteractRequest(start=pb.SubmitJobRequest(params=params)))
    chunks: dict[int, bytes] = {}
    init, prompt_at, paused_after, after_pause = b"", -1, -1, -1
    async with AsyncHeliosClient(address) as client, aclosing(client.interact(sent())) as events, asyncio.timeout(250):
        async for event in events:
            if event.HasField("prompt"):
                prompt_at = event.prompt.chunk_index
                commands.put_nowait(pb.InteractRequest(pause=pb.Pause()))
            if event.HasField("job") and event.job.paused and paused_after < 0:
                paused_after = event.job.chunks_done
                await asyncio.sleep(1.5)
                after_pause = (await client.get(event.job.id)).chunks_done
                commands.put_nowait(pb.InteractRequest(resume=pb.Resume()))
            if event.HasField("chunk"):
                part = event.chunk
                if part.init_segment:
                    init += part.data
                    continue
                chunks[part.chunk_index] = chunks.get(part.chunk_index, b"") + part.data
                if part.last_part and part.chunk_index == 0:
                    prompt = pb.ScheduledPrompt(prompt="red snow", interpolation_chunks=0)
                    commands.put_nowait(pb.InteractRequest(prompt=prompt))
                if part.last_part and part.chunk_index == 5:
                    commands.put_nowait(pb.InteractRequest(stop=pb.Stop()))
        job = event.job
        assert (job.state, job.chunks_total, job.chunks_done) == (pb.JOB_STATE_SUCCEEDED, len(chunks), len(chunks))
        assert sorted(chunks) == list(range(len(chunks)))
        assert len(chunks) >= 6
        assert after_pause - paused_after <= 2  # the chunk in progress and the one that is decoded
        seen = decoded(init + b"".join(chunks[index] for index in sorted(chunks)))
        # the same prompts, known from the start, give the same video
        schedule = [pb.ScheduledPrompt(chunk_index=prompt_at, prompt="red snow", interpolation_chunks=0)]
        replay = await client.submit("a lake", **SIZE, num_frames=33 * len(chunks), prompt_schedule=schedule)
        data = b"".join([segment.data async for segment in client.stream(replay.id)])
    assert np.array_equal(decoded(data), seen)


async def test_a_session_whose_client_is_gone_ends_by_itself(address: str) -> None:
    async def one() -> AsyncIterator[pb.InteractRequest]:
        params = pb.GenerationParams(prompt="a lake", open_ended=True, **SIZE)
        yield pb.InteractRequest(start=pb.SubmitJobRequest(params=params))
        await asyncio.sleep(60)

    async with AsyncHeliosClient(address) as client:
        async with aclosing(client.interact(one())) as events:
            async for event in events:
                if event.HasField("job"):
                    job_id = event.job.id
                if event.HasField("chunk") and event.chunk.last_part and not event.chunk.init_segment:
                    break
        async with asyncio.timeout(250):
            async for job in client.watch(job_id):
                last = job
        assert last.state == pb.JOB_STATE_SUCCEEDED
        assert last.chunks_done >= 1
