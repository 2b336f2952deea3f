"""Everything that the next chunk depends on: small, explicit, serialisable. This is the service's checkpoint."""

import json
from dataclasses import asdict, dataclass

import torch
from safetensors.torch import load, save

from helios_engine.request import GenerationRequest
from helios_engine.transformer import HISTORY_FRAMES

LATENT_CHANNELS = 16
VAE_SCALE = 8
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class DenoiseState:
    """The sampling state between two chunks. All tensors are on the CPU.

    chunk_index: the chunk made next. history: (1, 16, 19, H/8, W/8) float32, the last latent frames, oldest first, zero
    where the video has none yet. anchor: (1, 16, 1, H/8, W/8) float32, the video's first latent frame, zero before it
    exists. rng_state: (n,) uint8, of the generator that all noise comes from.
    """

    request: GenerationRequest
    chunk_index: int
    history: torch.Tensor
    anchor: torch.Tensor
    rng_state: torch.Tensor

    @classmethod
    def initial(cls, request: GenerationRequest) -> "DenoiseState":
        """The state before the first chunk of a text-to-video request."""
        height, width = request.height // VAE_SCALE, request.width // VAE_SCALE
        return cls(
            request=request,
            chunk_index=0,
            history=torch.zeros(1, LATENT_CHANNELS, sum(HISTORY_FRAMES), height, width),
            anchor=torch.zeros(1, LATENT_CHANNELS, 1, height, width),
            rng_state=torch.Generator().manual_seed(request.seed).get_state(),
        )

    def advanced(self, latents: torch.Tensor, generator: torch.Generator) -> "DenoiseState":
        """The state after a chunk with these latents, (1, 16, 9, H/8, W/8)."""
        frames = self.history.shape[2]
        return DenoiseState(
            request=self.request,
            chunk_index=self.chunk_index + 1,
            history=torch.cat([self.history, latents], dim=2)[:, :, -frames:].contiguous(),
            anchor=latents[:, :, :1].clone() if self.chunk_index == 0 else self.anchor,
            rng_state=generator.get_state(),
        )

    def generator(self) -> torch.Generator:
        """A generator that continues where this state's left off."""
        generator = torch.Generator()
        generator.set_state(self.rng_state.clone())
        return generator

    def to_bytes(self) -> bytes:
        """Serialises with safetensors; `from_bytes` restores it bit for bit."""
        header = {"format": FORMAT, "chunk_index": self.chunk_index, "request": asdict(self.request)}
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
        if header["format"] != FORMAT:
            raise ValueError(f"sampling state: format {header['format']!r} is not allowed; allowed: {FORMAT}")
        request = header["request"] | {"pyramid_steps": tuple(header["request"]["pyramid_steps"])}
        return cls(request=GenerationRequest(**request), chunk_index=header["chunk_index"], **tensors)
