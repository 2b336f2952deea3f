"""The decoder replica: latents in, H.264 out; raw frames never leave it."""

import time

from helios_engine.request import GenerationRequest
from helios_engine.vae import VideoDecoder
from helios_services.config import ServiceConfig
from helios_services.deployments.stages import Denoised, Encoded
from helios_services.deployments.torch_replica import TorchReplica
from helios_services.media.encoder import EncoderSettings, encode_chunk


class DecoderReplica(TorchReplica):
    """The VAE decoder (float32) on one device, and the H.264 encoder beside it."""

    def __init__(self, config: ServiceConfig) -> None:
        options = config.decoder
        super().__init__(config, options)
        self._decoder = VideoDecoder.from_pretrained(config.model.checkpoint, device=self.device)
        self._settings = EncoderSettings(crf=options.crf, preset=options.preset, threads=options.encoder_threads)

    async def decode_chunk(self, denoised: Denoised, request: GenerationRequest) -> Encoded:
        """Decodes and encodes a chunk."""
        return await self.run(self._decode, denoised, request)

    def _decode(self, denoised: Denoised, request: GenerationRequest) -> Encoded:
        start = time.perf_counter()
        frames = self._decoder.decode(denoised.latents)
        decoded = time.perf_counter()
        index = denoised.state.chunk_index - 1
        chunk = encode_chunk(frames, index=index, fps=request.fps, settings=self._settings)
        return Encoded(
            init_segment=chunk.init_segment,
            fragment=chunk.fragment,
            num_frames=chunk.num_frames,
            decode_s=decoded - start,
            encode_s=time.perf_counter() - decoded,
            memory_bytes=self.memory_bytes(),
        )
