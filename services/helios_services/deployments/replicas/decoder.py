"""The decoder replica: the VAE and the video encoder. Raw frames never leave it.

The device has a thread, H.264 has one, and uploads are decoded on others: a clip that takes a minute holds up no chunk.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helios_engine.request import FRAMES_PER_CHUNK, GenerationRequest
from helios_engine.sampling.conditioning import conditioned_state
from helios_engine.vae.conditions import Condition
from helios_engine.vae.encoder import HISTORY_CHUNKS
from helios_services.config import ServiceConfig
from helios_services.deployments.dispatch.stages import Conditioned, Denoised, Encoded
from helios_services.deployments.replicas.fair_places import FairPlaces
from helios_services.deployments.replicas.load_vae import load_vae
from helios_services.deployments.replicas.torch_replica import TorchReplica
from helios_services.jobs.records import JobFailure, Media
from helios_services.media.artifacts import ArtifactStore
from helios_services.media.encoder import EncodedChunk, EncoderSettings, encode_chunk
from helios_services.media.errors import MediaError
from helios_services.media.inputs import decode_clip, decode_image
from helios_services.media.sandbox_check import check_sandbox

CHUNKS_AT_A_TIME = 2
"""Chunks whose frames a replica holds: one is encoded while the next is decoded, or waits to be encoded."""


class DecoderReplica(TorchReplica):
    """The VAE on one device. H.264 is made on a thread of its own, so that the device does not wait for it."""

    def __init__(self, config: ServiceConfig) -> None:
        options = config.decoder
        check_sandbox(config.media)
        super().__init__(config, options)
        self._settings = EncoderSettings(crf=options.crf, preset=options.preset, threads=options.encoder_threads)
        self._uploads, self._limits = ArtifactStore(config.uploads), config.media
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="h264")
        uploads = options.max_ongoing_requests - CHUNKS_AT_A_TIME
        self._places = FairPlaces(uploads)
        self._decoding = ThreadPoolExecutor(uploads, thread_name_prefix="upload")
        self._held = asyncio.Semaphore(CHUNKS_AT_A_TIME)
        self._vae_decoder, self._vae_encoder = self.load(load_vae, config, self.device)

    async def condition(self, request: GenerationRequest, media: Media) -> Conditioned | JobFailure:
        """The state that a job starts from, of an uploaded image or clip.

        Raises Busy. A cancelled call ends at once; its place is free when its thread is.
        """
        leave = self._places.take(media.tenant)
        work = self._decoding.submit(self._call, self._condition, request, media)
        loop = asyncio.get_running_loop()
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(leave))
        return await self.result(work)

    async def decode_chunk(self, denoised: Denoised, request: GenerationRequest) -> Encoded:
        """Decodes a chunk's latents and encodes the frames as H.264.

        A cancelled call ends at once. A thread that is at its work ends that first; only then is its place free.
        """
        index = denoised.state.chunks_made - 1
        loop = asyncio.get_running_loop()
        held: list[NDArray[np.uint8]] = []  # the frames, in nothing else: a cancelled call's stay in a thread's queue

        def leave(_: Future[Any]) -> None:
            held.clear()
            loop.call_soon_threadsafe(self._held.release)

        await self._held.acquire()
        work: Future[Any] = self._thread.submit(self._call, self._decode, denoised, held)
        try:
            decode_s = await self.result(work)
            work = self._encoding.submit(self._call, self._compress, held, index, request.fps)
            chunk, encode_s = await self.result(work)
        finally:
            work.add_done_callback(leave)
        return Encoded(
            init_segment=chunk.init_segment,
            fragment=chunk.fragment,
            num_frames=chunk.num_frames,
            decode_s=decode_s,
            encode_s=encode_s,
            memory_bytes=self.memory_bytes(),
        )

    def _condition(self, request: GenerationRequest, media: Media) -> Conditioned | JobFailure:
        start = time.perf_counter()
        try:
            with self._uploads.open(media.name) as file:
                data = file.read()
            state = conditioned_state(request, self._encode(data, request, media.content_type))
        except FileNotFoundError:
            return JobFailure(reason="MEDIA_GONE", message=f"media {media.id!r} is no longer kept")
        except MediaError as error:
            return JobFailure(reason=error.reason.value, message=error.message)
        return Conditioned(state=state, seconds=time.perf_counter() - start)

    def _encode(self, data: bytes, request: GenerationRequest, content_type: str) -> Condition:
        height, width = request.height, request.width
        if content_type.startswith("image/"):
            image = decode_image(data, content_type, height=height, width=width, limits=self._limits)
            return self._on_device(self._vae_encoder.condition_on_image, image)
        clip = decode_clip(
            data,
            content_type,
            height=height,
            width=width,
            fps=request.fps,
            keep_last=HISTORY_CHUNKS * FRAMES_PER_CHUNK,
            limits=self._limits,
        )
        return self._on_device(self._vae_encoder.condition_on_video, clip.first, clip.tail, clip.num_frames)

    def _on_device(self, function: Callable[..., Condition], *args: object) -> Condition:
        """Waits, so that no more frames are held than there are threads for uploads."""
        return self._thread.submit(self._call, function, *args).result()

    def _decode(self, denoised: Denoised, held: list[NDArray[np.uint8]]) -> float:
        start = time.perf_counter()
        held.append(self._vae_decoder.decode_for_video(denoised.latents))
        return time.perf_counter() - start

    def _compress(self, held: list[NDArray[np.uint8]], index: int, fps: int) -> tuple[EncodedChunk, float]:
        start = time.perf_counter()
        chunk = encode_chunk(held.pop(), index=index, fps=fps, settings=self._settings)
        return chunk, time.perf_counter() - start
