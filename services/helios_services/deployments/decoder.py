"""The decoder replica, the VAE: latents in, H.264 out, and uploads in, latents out; raw frames never leave it."""

import time

import torch

from helios_engine.conditioning import Condition, conditioned_state
from helios_engine.request import FRAMES_PER_CHUNK, GenerationRequest
from helios_engine.vae import VideoDecoder
from helios_engine.vae_encoder import HISTORY_CHUNKS, VideoEncoder
from helios_services.config import ServiceConfig
from helios_services.deployments.stages import Conditioned, Denoised, Encoded
from helios_services.deployments.torch_replica import TorchReplica
from helios_services.jobs.records import JobFailure, Media
from helios_services.media.artifacts import ArtifactStore
from helios_services.media.encoder import EncoderSettings, encode_chunk
from helios_services.media.errors import MediaError
from helios_services.media.inputs import decode_clip, decode_image


class DecoderReplica(TorchReplica):
    """The VAE on one device, and H.264 beside it."""

    def __init__(self, config: ServiceConfig) -> None:
        options = config.decoder
        super().__init__(config, options)
        self._decoder = VideoDecoder.from_pretrained(
            config.model.checkpoint, device=self.device, dtype=getattr(torch, options.vae_dtype)
        )
        self._encoder = VideoEncoder.from_pretrained(config.model.checkpoint, device=self.device)
        self._settings = EncoderSettings(crf=options.crf, preset=options.preset, threads=options.encoder_threads)
        self._uploads, self._limits = ArtifactStore(config.uploads), config.media

    async def condition(self, request: GenerationRequest, media: Media) -> Conditioned | JobFailure:
        """The state that a job starts from, of an uploaded image or clip."""
        return await self.run(self._condition, request, media)

    async def decode_chunk(self, denoised: Denoised, request: GenerationRequest) -> Encoded:
        """Decodes and encodes a chunk."""
        return await self.run(self._decode, denoised, request)

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
            return self._encoder.condition_on_image(image)
        clip = decode_clip(
            data,
            content_type,
            height=height,
            width=width,
            fps=request.fps,
            keep_last=HISTORY_CHUNKS * FRAMES_PER_CHUNK,
            limits=self._limits,
        )
        return self._encoder.condition_on_video(clip.first, clip.tail, clip.num_frames)

    def _decode(self, denoised: Denoised, request: GenerationRequest) -> Encoded:
        start = time.perf_counter()
        frames = self._decoder.decode(denoised.latents)
        decoded = time.perf_counter()
        index = denoised.state.chunks_made - 1
        chunk = encode_chunk(frames, index=index, fps=request.fps, settings=self._settings)
        return Encoded(
            init_segment=chunk.init_segment,
            fragment=chunk.fragment,
            num_frames=chunk.num_frames,
            decode_s=decoded - start,
            encode_s=time.perf_counter() - decoded,
            memory_bytes=self.memory_bytes(),
        )
