"""Everything that the next chunk depends on: small, explicit, serialisable. The service stores it as a saved state."""

import json
from dataclasses import dataclass, replace

import torch
from safetensors.torch import load, save

from helios_engine.configs import HISTORY_FRAMES
from helios_engine.request import GenerationRequest

LATENT_CHANNELS = 16
VAE_SCALE = 8
FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class DenoiseState:
    """The sampling state between two chunks. All tensors are on the CPU.

    request: with the variant's defaults filled in, without media. chunk_index: the chunk made next. first_chunk: the
    chunk that this video starts with; more than 0 when it continues another. history: (1, 16, 19, H/8, W/8) float32,
    the last latent frames, oldest first, zero where the video has none yet; 20 frames where the first is not kept.
    anchor: (1, 16, 1, H/8, W/8) float32, the video's first latent frame, or (1, 16, 0, H/8, W/8) while there is none.
    rng_state: (n,) uint8, of the generator that all noise comes from.
    """

    request: GenerationRequest
    chunk_index: int
    history: torch.Tensor
    anchor: torch.Tensor
    rng_state: torch.Tensor
    first_chunk: int = 0

    @classmethod
    def initial(cls, request: GenerationRequest) -> "DenoiseState":
        """The state before the first chunk of a text-to-video request."""
        height, width = request.height // VAE_SCALE, request.width // VAE_SCALE
        return cls(
            request=replace(request, image=None, video=None),
            chunk_index=0,
            history=torch.zeros(1, LATENT_CHANNELS, history_frames(request), height, width),
            anchor=torch.zeros(1, LATENT_CHANNELS, 0, height, width),
            rng_state=torch.Generator().manual_seed(request.seed).get_state(),
        )

    @property
    def chunks_made(self) -> int:
        """How many chunks of this video have been made."""
        return self.chunk_index - self.first_chunk

    def advanced(self, latents: torch.Tensor, generator: torch.Generator) -> "DenoiseState":
        """The state after a chunk with these latents, (1, 16, 9, H/8, W/8)."""
        frames, request = self.history.shape[2], self.request
        no_anchor = self.anchor.shape[2] == 0
        takes_anchor = (self.chunk_index == 0 and no_anchor) or (request.skip_first_chunk and self.chunk_index == 1)
        return replace(
            self,
            chunk_index=self.chunk_index + 1,
            history=torch.cat([self.history, latents], dim=2)[:, :, -frames:].contiguous(),
            anchor=latents[:, :, :1].clone() if takes_anchor and request.keep_first_frame else self.anchor,
            rng_state=generator.get_state(),
        )

    def continued(self, request: GenerationRequest) -> "DenoiseState":
        """The state from which `request` makes the chunks that follow, as if it had been one longer video.

        Raises ValueError naming the field unless both requests have the same size and keep the same history.
        """
        for name in ("height", "width", "keep_first_frame"):
            if getattr(request, name) != getattr(self.request, name):
                raise ValueError(
                    f"{name}: {getattr(request, name)!r} is not allowed; allowed: {getattr(self.request, name)!r}, "
                    "that of the video to continue"
                )
        return replace(self, request=replace(request, image=None, video=None), first_chunk=self.chunk_index)

    def generator(self) -> torch.Generator:
        """A generator that continues where this state's left off."""
        generator = torch.Generator()
        generator.set_state(self.rng_state.clone())
        return generator

    def to_bytes(self) -> bytes:
        """Serialises with safetensors; `from_bytes` restores it bit for bit."""
        header = {
            "format": FORMAT,
            "chunk_index": self.chunk_index,
            "first_chunk": self.first_chunk,
            "request": self.request.to_dict(),
        }
        data: bytes = save(
            {
                "history": self.history,
                "anchor": self.anchor,
                "rng_state": self.rng_state,
                "header": torch.frombuffer(bytearray(json.dumps(header).encode()), dtype=torch.uint8),
            }
        )
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "DenoiseState":
        """Restores a state. Raises ValueError for bytes of another format."""
        tensors = load(data)
        header = json.loads(tensors.pop("header").numpy().tobytes())
        if header.pop("format") != FORMAT:
            raise ValueError(f"sampling state: its format is not allowed; allowed: {FORMAT}")
        request = GenerationRequest.from_dict(header.pop("request"))
        return cls(request=request, **header, **tensors)


def history_frames(request: GenerationRequest) -> int:
    """Latent frames of history that a chunk sees, besides the anchor."""
    return sum(HISTORY_FRAMES) + (not request.keep_first_frame)
