"""What to generate: one frozen, self-validating record. Free of torch, so that a gateway can import it alone."""

import math
from dataclasses import dataclass, fields

from helios_engine.errors import InvalidField

FRAMES_PER_CHUNK = 33
"""Frames that one chunk decodes to: (9 - 1) * 4 + 1."""
LATENT_FRAMES_PER_CHUNK = 9
SIZE_MULTIPLE = 64
"""Height and width granularity: VAE 8x, patch 2x, two halvings of the pyramid."""
MAX_PROMPT_CHARS = 8_000
MAX_SEED = 2**63 - 1
MAX_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """A text-to-video request to a step-distilled Helios model.

    `num_frames` is rounded up to whole chunks of 33 frames, all of which are delivered. `pyramid_steps` are the
    denoising steps of each pyramid stage, coarse to fine; `amplify_first_chunk` doubles them in the
    first chunk. Raises InvalidField (a ValueError) naming the field, the value and what is allowed.
    """

    prompt: str
    num_frames: int = 132
    height: int = 384
    width: int = 640
    seed: int = 0
    pyramid_steps: tuple[int, ...] = (2, 2, 2)
    amplify_first_chunk: bool = False
    guidance_scale: float = 1.0
    fps: int = 24

    def __post_init__(self) -> None:
        _text("prompt", self.prompt)
        _integer("num_frames", self.num_frames, 1, 2**31 - 1)
        for name in ("height", "width"):
            _size(name, getattr(self, name))
        _integer("seed", self.seed, 0, MAX_SEED)
        _integer("fps", self.fps, 1, 120)
        _steps(self.pyramid_steps)
        if not isinstance(self.amplify_first_chunk, bool):
            raise InvalidField("amplify_first_chunk", self.amplify_first_chunk, "true or false")
        scale = self.guidance_scale
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isclose(scale, 1.0):
            allowed = "1.0 (step-distilled models have guidance distilled in)"
            raise InvalidField("guidance_scale", scale, allowed)

    @property
    def num_chunks(self) -> int:
        """Chunks the video has."""
        return -(-self.num_frames // FRAMES_PER_CHUNK)


FIELDS = frozenset(field.name for field in fields(GenerationRequest))


def _text(name: str, value: object) -> None:
    allowed = f"1 to {MAX_PROMPT_CHARS:,} characters, not only white space, no NUL"
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise InvalidField(name, value, allowed)
    if len(value) > MAX_PROMPT_CHARS:
        raise InvalidField(name, value, f"{allowed} (this one has {len(value):,})")


def _integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidField(name, value, f"an integer from {low} to {high}")


def _size(name: str, value: object) -> None:
    allowed = f"a positive multiple of {SIZE_MULTIPLE}"
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise InvalidField(name, value, allowed)
    if value % SIZE_MULTIPLE:
        lower = value // SIZE_MULTIPLE * SIZE_MULTIPLE
        nearest = [size for size in (lower, lower + SIZE_MULTIPLE) if size > 0]
        raise InvalidField(name, value, f"{allowed}; nearest: {' or '.join(map(str, nearest))}")


def _steps(steps: object) -> None:
    allowed = f"3 integers from 1 to {MAX_STEPS}, one per pyramid stage"
    if not isinstance(steps, tuple) or len(steps) != 3:
        raise InvalidField("pyramid_steps", steps, allowed)
    for step in steps:
        if isinstance(step, bool) or not isinstance(step, int) or not 1 <= step <= MAX_STEPS:
            raise InvalidField("pyramid_steps", steps, allowed)
