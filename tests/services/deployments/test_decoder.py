"""The decoder replica: the VAE on one thread, H.264 on another, and a bound on what waits between them."""

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helios_engine.loading.tiny import write_tiny
from helios_engine.request import GenerationRequest
from helios_engine.sampling.state import DenoiseState
from helios_engine.vae.decoder import VAEDecoder
from helios_engine.vae.encoder import VAEEncoder
from helios_engine.variants import make_request
from helios_services.config import ServiceConfig
from helios_services.deployments.dispatch.stages import Busy, Conditioned, Denoised
from helios_services.deployments.replicas import decoder as module
from helios_services.deployments.replicas import load_vae as loading
from helios_services.deployments.replicas.decoder import DecoderReplica
from helios_services.jobs.records import Media
from helios_services.media.artifacts import ArtifactStore
from helios_services.media.encoder import EncoderSettings, encode_chunk
from helios_services.media.inputs import Clip
from support.tiny import tiny_service
from support.waiting import until

REQUEST: GenerationRequest = make_request("distilled", prompt="a lake", height=64, width=64)


def config(tmp_path: Path, **decoder: Any) -> ServiceConfig:
    write_tiny(tmp_path / "tiny")
    model = {"warm_up_sizes": [[64, 128], [128, 64]]}
    return tiny_service(tmp_path / "tiny", tmp_path, model=model, decoder=decoder)


def denoised(number: int) -> Denoised:
    """Chunk `number` of a video."""
    latents = torch.randn(1, 16, 9, 8, 8, generator=torch.Generator().manual_seed(number))
    state = replace(DenoiseState.initial(REQUEST), chunk_index=number + 1)
    return Denoised(latents=latents, state=state, seconds=1.0, memory_bytes=0)


class Encoding:
    """Stands before `encode_chunk`: chunks wait until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[int] = []
        self.decoded: list[int] = []
        self.frames: list[weakref.ref[Any]] = []
        self.threads: set[str] = set()
        self.go = threading.Semaphore(0)
        decode = VAEDecoder.decode_for_video

        def count(decoder: VAEDecoder, latents: torch.Tensor) -> Any:
            self.decoded.append(len(self.decoded))
            frames = decode(decoder, latents)
            self.frames.append(weakref.ref(frames))
            return frames

        def wait(frames: Any, *, index: int, **options: Any) -> Any:
            self.threads.add(threading.current_thread().name)
            self.begun.append(index)
            assert self.go.acquire(timeout=120)
            if index == 7:
                raise ValueError("not to be encoded")
            return encode_chunk(frames, index=index, **options)

        monkeypatch.setattr(VAEDecoder, "decode_for_video", count)
        monkeypatch.setattr(module, "encode_chunk", wait)


async def test_a_chunk_is_what_decoding_and_encoding_make_of_it(tmp_path: Path) -> None:
    replica = DecoderReplica(config(tmp_path))
    encoded = await replica.decode_chunk(denoised(3), REQUEST)
    frames = replica._vae_decoder.decode(denoised(3).latents)
    expected = encode_chunk(frames, index=3, fps=REQUEST.fps, settings=EncoderSettings())
    assert encoded.fragment == expected.fragment
    assert encoded.init_segment == expected.init_segment
    assert encoded.num_frames == 33


async def test_the_next_chunk_is_decoded_while_one_is_encoded_and_no_more_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, encoding = DecoderReplica(config(tmp_path)), Encoding(monkeypatch)
    calls = [asyncio.create_task(replica.decode_chunk(denoised(number), REQUEST)) for number in range(4)]
    await until(lambda: len(encoding.decoded) == 2 and encoding.begun == [0])
    replica.load(lambda: None)  # the torch thread has nothing left to do
    await asyncio.sleep(0)
    assert len(encoding.decoded) == 2  # the third waits for the first to be encoded: one waits at most
    for number in range(4):
        await until(lambda number=number: encoding.begun == list(range(number + 1)))  # type: ignore[misc]
        assert not calls[number].done()
        encoding.go.release()
        assert (await calls[number]).num_frames == 33
    assert encoding.threads == {"h264_0"}


async def test_a_failed_and_a_cancelled_chunk_leave_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, encoding = DecoderReplica(config(tmp_path)), Encoding(monkeypatch)
    failing = asyncio.create_task(replica.decode_chunk(denoised(7), REQUEST))
    waiting = asyncio.create_task(replica.decode_chunk(denoised(1), REQUEST))
    await until(lambda: len(encoding.decoded) == 2 and encoding.begun == [7])
    waiting.cancel()
    encoding.go.release(8)
    with pytest.raises(ValueError, match="not to be encoded"):
        await failing
    with pytest.raises(asyncio.CancelledError):
        await waiting
    for number in range(3):
        assert (await replica.decode_chunk(denoised(number), REQUEST)).num_frames == 33


async def cancelled(call: asyncio.Task[Any]) -> None:
    """Cancels the call, and returns when it has ended."""
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_cancelled_calls_hold_no_more_frames_than_two_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, encoding = DecoderReplica(config(tmp_path)), Encoding(monkeypatch)

    def alive() -> list[int]:
        return [number for number, frames in enumerate(encoding.frames) if frames() is not None]

    calls = [asyncio.create_task(replica.decode_chunk(denoised(number), REQUEST)) for number in range(5)]
    await until(lambda: len(encoding.frames) == 2 and encoding.begun == [0])
    await cancelled(calls[0])  # the encoder is still at its frames: the place of chunk 0 stays taken
    replica.load(lambda: None)
    await asyncio.sleep(0.05)
    replica.load(lambda: None)  # whatever was submitted meanwhile is decoded
    assert alive() == [0, 1]
    assert len(encoding.decoded) == 2
    for number in (1, 2, 3):  # each waits for the encoder when it is cancelled: its frames go, and the next is decoded
        await until(lambda number=number: alive() == [0, number] and replica._encoding._work_queue.qsize() == number)  # type: ignore[misc]
        await cancelled(calls[number])
    await until(lambda: alive() == [0, 4])
    assert encoding.begun == [0]
    encoding.go.release(2)
    assert (await calls[4]).num_frames == 33
    assert encoding.begun == [0, 4]
    await until(lambda: alive() == [] and replica._held._value == module.CHUNKS_AT_A_TIME)


async def test_a_cancelled_chunk_keeps_its_place_while_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, go, begun = DecoderReplica(config(tmp_path)), threading.Event(), threading.Event()
    decode = VAEDecoder.decode_for_video

    def wait(decoder: VAEDecoder, latents: torch.Tensor) -> Any:
        begun.set()
        assert go.wait(120)
        return decode(decoder, latents)

    monkeypatch.setattr(VAEDecoder, "decode_for_video", wait)
    running, queued = (asyncio.create_task(replica.decode_chunk(denoised(n), REQUEST)) for n in range(2))
    await until(begun.is_set)
    await cancelled(queued)
    await cancelled(running)
    await asyncio.sleep(0)
    assert replica._held._value == module.CHUNKS_AT_A_TIME - 1
    go.set()
    await until(lambda: replica._held._value == module.CHUNKS_AT_A_TIME)
    assert (await replica.decode_chunk(denoised(2), REQUEST)).num_frames == 33


async def test_a_replica_whose_encoding_hangs_ends_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replica, encoding = DecoderReplica(config(tmp_path, request_timeout_s=1000.0)), Encoding(monkeypatch)
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    call = asyncio.create_task(replica.decode_chunk(denoised(0), REQUEST))
    await until(lambda: bool(encoding.begun))
    await replica.check_health()
    assert ended == []
    now = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now + 1001.0)
        await replica.check_health()
    assert ended == [1]
    encoding.go.release()
    await call
    await replica.check_health()
    assert ended == [1]


async def test_slow_clips_hold_up_neither_chunks_nor_another_tenants_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attack: clips that are decoded for as long as they may be, cancelled and sent again."""
    options, go = config(tmp_path), threading.Event()
    frames = np.zeros((33, 64, 64, 3), np.uint8)

    def wait(*_: Any, **__: Any) -> Clip:
        assert go.wait(120)
        return Clip(first=frames[0], tail=frames, num_frames=33)

    monkeypatch.setattr(module, "decode_clip", wait)
    monkeypatch.setattr(module, "decode_image", lambda *_, **__: frames[0])
    replica = DecoderReplica(options)
    file = tmp_path / "upload"
    await asyncio.to_thread(file.write_bytes, b"upload")

    def start(tenant: str, content_type: str) -> asyncio.Task[Any]:
        name = f"{tenant}.{content_type.partition('/')[2]}"
        ArtifactStore(options.uploads).publish(file, name)
        media = Media(id=name, name=name, content_type=content_type, size_bytes=6, expire_s=0.0, tenant=tenant)
        return asyncio.create_task(replica.condition(REQUEST, media))

    first = start("a", "video/mp4")
    await asyncio.sleep(0)
    with pytest.raises(Busy):  # a tenant's next one
        await start("a", "video/mp4")
    await cancelled(first)
    with pytest.raises(Busy):  # the thread is still at the one that was cancelled
        await start("a", "video/mp4")
    assert isinstance(await start("b", "image/png"), Conditioned)
    slow = start("c", "video/mp4")
    await asyncio.sleep(0)
    with pytest.raises(Busy):  # every place for uploads is taken
        await start("d", "image/png")
    assert options.decoder.max_ongoing_requests >= 2 + module.CHUNKS_AT_A_TIME  # Serve has places left for chunks
    for number in range(2):
        assert (await replica.decode_chunk(denoised(number), REQUEST)).num_frames == 33
    go.set()
    assert isinstance(await slow, Conditioned)
    await until(lambda: not replica._places._taken)
    assert isinstance(await start("a", "video/mp4"), Conditioned)


async def test_each_time_is_of_its_own_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replica, clock = DecoderReplica(config(tmp_path)), [0.0]
    frames = np.zeros((33, 64, 64, 3), np.uint8)

    def spend(seconds: float, result: Any) -> Any:
        clock[0] += seconds
        return result

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(VAEDecoder, "decode_for_video", lambda *_: spend(5.0, frames))
    chunk = encode_chunk(frames, index=0, fps=24, settings=EncoderSettings())
    monkeypatch.setattr(module, "encode_chunk", lambda *_, **__: spend(7.0, chunk))
    encoded = await replica.decode_chunk(denoised(0), REQUEST)
    assert (encoded.decode_s, encoded.encode_s) == (5.0, 7.0)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
async def test_a_replica_on_a_gpu_is_warmed_up_on_the_thread_that_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    seen: list[tuple[str, Any, str]] = []
    caches: list[Path] = []

    def note(name: str, shape: Any = None) -> None:
        seen.append((name, shape, threading.current_thread().name))

    def noted(load: Callable[..., Any]) -> Callable[..., Any]:
        def loaded(path: str, **options: Any) -> Any:
            note("load", (str(options["device"]), options["activation_budget_bytes"]))
            return load(path, **options | {"device": "cpu"})

        return loaded

    for name in ("load_decoder", "load_encoder"):
        monkeypatch.setattr(loading, name, noted(getattr(loading, name)))
    monkeypatch.setattr(VAEDecoder, "decode_for_video", lambda _, latents: note("decode", tuple(latents.shape)))
    monkeypatch.setattr(VAEEncoder, "condition_on_image", lambda _, image: note("encode", image.shape))
    monkeypatch.setattr(loading, "use_cache", caches.append)
    gpus = 0.5 if device == "cuda" else 0.0
    replica = DecoderReplica(config(tmp_path, device=device, num_gpus=gpus, activation_budget_gb=2.5))
    load = ("load", (device, 2_500_000_000), "torch_0")
    warm_up = [
        step
        for height, width in ((64, 128), (128, 64))
        for step in (
            ("decode", (1, 16, 9, height // 8, width // 8), "torch_0"),
            ("encode", (height, width, 3), "torch_0"),
        )
    ]
    assert seen == [load, load, *(warm_up if device == "cuda" else [])]
    assert caches == ([tmp_path / "compile-cache"] if device == "cuda" else [])
    assert replica.load(lambda: threading.current_thread().name) == "torch_0"
