"""What the stages hand to each other and to the dispatcher."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from helios_engine.request import GenerationRequest
from helios_engine.sampling.state import DenoiseState
from helios_services.deployments.dispatch.turns import Turn
from helios_services.jobs.records import JobFailure, Media


class Busy(Exception):
    """The replica is at as many calls of this kind as it may be; nothing was started."""


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A prompt's embedding without padding, (n, text_dim)."""

    prompt_embeds: torch.Tensor
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Conditioned:
    """The state before the first chunk of a job that starts from an upload."""

    state: DenoiseState
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Denoised:
    """A chunk's latents, (1, 16, 9, H/8, W/8), and the state that the next chunk starts from."""

    latents: torch.Tensor
    state: DenoiseState
    seconds: float
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A chunk's H.264 fragment and the video's init segment."""

    init_segment: bytes
    fragment: bytes
    num_frames: int
    decode_s: float
    encode_s: float
    memory_bytes: int


class Call(Protocol):
    """A call of a stage in progress: awaiting it gives the value; it can be handed on by reference before that."""

    def __await__(self) -> Any: ...


class Stages(Protocol):
    """The three stages as the dispatcher calls them."""

    def embed(self, prompt: str) -> Awaitable[Embedded]:
        """Embeds a prompt."""

    def condition(self, request: GenerationRequest, media: Media) -> Awaitable[Conditioned | JobFailure]:
        """The state before the first chunk of a job that starts from an upload; JobFailure if it cannot be used.

        Raises Busy.
        """

    def denoise(
        self,
        previous: Call | DenoiseState,
        prompt_embeds: torch.Tensor,
        negative_prompt_embeds: torch.Tensor | None,
        turn: Turn,
    ) -> Call:
        """Makes the next chunk (a Denoised) after `previous`: a state, or the denoise call of the chunk before.

        Raises Expired if the turn comes too late.
        """

    def decode(self, denoised: Call | Denoised, request: GenerationRequest) -> Awaitable[Encoded]:
        """Decodes and encodes what a denoise call made."""

    def lost(self, error: BaseException) -> bool:
        """Whether the error means that the replica died or the call got lost, not that the work is impossible."""

    def unavailable(self, error: BaseException) -> bool:
        """Whether the error means that no replica took the call yet."""

    async def absent(self) -> frozenset[str] | None:
        """Stages (of text, condition, denoise, decode) without a replica that serves; None while nobody can tell."""
