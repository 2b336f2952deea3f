"""What to generate: one frozen, self-validating record. Free of torch, so that a gateway can import it alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from helios_engine.errors import InvalidField
from helios_engine.prompts import MAX_INTERPOLATION_CHUNKS, ScheduledPrompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FRAMES_PER_CHUNK = 33
"""Frames that one chunk decodes to: (9 - 1) * 4 + 1."""
LATENT_FRAMES_PER_CHUNK = 9
SIZE_MULTIPLE = 16
"""Height and width granularity of every variant: VAE 8x, patch 2x. Pyramids need more (variants.py)."""
MAX_PROMPT_CHARS = 8_000
MAX_SEED = 2**63 - 1
MAX_STEPS = 50
MAX_INFERENCE_STEPS = 200
MAX_GUIDANCE_SCALE = 100.0
MAX_SHIFT = 100.0
MAX_CHUNKS = 1_000_000
MAX_SCHEDULED_PROMPTS = 256
MAX_LORAS, MAX_LORA_SCALE = 8, 10.0
MEDIA = ("image", "video")
NOISE_SIGMA = (0.111, 0.135)
"""Published range of the noise level that conditioning latents are given."""


@dataclass(frozen=True, kw_only=True)
class LoraWeight:
    """A LoRA adapter that the model offers, by name, and how strongly it takes part."""

    name: str
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """A request to a Helios model. Fields that are None take the variant's default (`variants.resolve`).

    num_frames: rounded up to whole chunks of 33 frames, all of which are delivered. height, width: pixels. fps: frames
    per second of the file. seed: the same seed gives the same video.
    pyramid_steps: denoising steps of each pyramid stage, coarse to fine (Mid, Distilled). num_inference_steps: the
    denoising steps of Base. guidance_scale: classifier-free guidance; 1 is none. shift: strength of the schedule's time
    shift, in place of the one that the model derives from the number of latent tokens. amplify_first_chunk: twice the
    steps in the first chunk (Distilled). zero_init, zero_steps: CFG-Zero* (Mid) predicts zero in steps 0 to zero_steps
    of the coarsest pyramid stage.
    keep_first_frame: the first latent frame stays in every chunk's history, as an anchor. skip_first_chunk: the anchor
    is taken from the second chunk. image: (H, W, 3) uint8 to animate. video: (T, H, W, 3) uint8 to continue. Both have
    the request's size. condition_noise: False leaves their latents clean. image_noise_sigma, video_noise_sigma: lowest
    and highest level of the noise that is added otherwise.
    prompt_schedule: prompts that take over at later chunks. loras: LoRA adapters that take part.

    Raises InvalidField (a ValueError) naming the field, the value and what is allowed.
    """

    prompt: str
    negative_prompt: str = ""
    num_frames: int = 132
    height: int = 384
    width: int = 640
    seed: int = 0
    fps: int = 24
    num_inference_steps: int | None = None
    pyramid_steps: tuple[int, ...] | None = None
    guidance_scale: float | None = None
    shift: float | None = None
    amplify_first_chunk: bool | None = None
    zero_init: bool | None = None
    zero_steps: int | None = None
    keep_first_frame: bool = True
    skip_first_chunk: bool = False
    condition_noise: bool = True
    image_noise_sigma: tuple[float, float] = NOISE_SIGMA
    video_noise_sigma: tuple[float, float] = NOISE_SIGMA
    prompt_schedule: tuple[ScheduledPrompt, ...] = ()
    loras: tuple[LoraWeight, ...] = ()
    image: NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)
    video: NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_prompt("prompt", self.prompt)
        if self.negative_prompt != "":
            check_prompt("negative_prompt", self.negative_prompt)
        _integer("num_frames", self.num_frames, 1, MAX_CHUNKS * FRAMES_PER_CHUNK)
        for name in ("height", "width"):
            check_size(name, getattr(self, name), SIZE_MULTIPLE)
        _integer("seed", self.seed, 0, MAX_SEED)
        _integer("fps", self.fps, 1, 120)
        if self.num_inference_steps is not None:
            _integer("num_inference_steps", self.num_inference_steps, 1, MAX_INFERENCE_STEPS)
        if self.pyramid_steps is not None:
            _steps(self.pyramid_steps)
        if self.guidance_scale is not None:
            _number("guidance_scale", self.guidance_scale, 1.0, MAX_GUIDANCE_SCALE)
        if self.shift is not None:
            _number("shift", self.shift, 0.01, MAX_SHIFT)
        if self.zero_steps is not None:
            _integer("zero_steps", self.zero_steps, 0, MAX_STEPS)
        for name in ("amplify_first_chunk", "zero_init", "keep_first_frame", "skip_first_chunk", "condition_noise"):
            value, optional = getattr(self, name), name in ("amplify_first_chunk", "zero_init")
            if not isinstance(value, bool) and not (optional and value is None):
                raise InvalidField(name, value, "true or false")
        for name in ("image_noise_sigma", "video_noise_sigma"):
            _sigma_range(name, getattr(self, name))
        _schedule(self.prompt_schedule)
        _loras(self.loras)
        for name in MEDIA:
            _pixels(name, getattr(self, name), self.height, self.width)
        if self.image is not None and self.video is not None:
            raise InvalidField("video", "given together with image", "one of image and video")

    @property
    def num_chunks(self) -> int:
        """Chunks the video has."""
        return -(-self.num_frames // FRAMES_PER_CHUNK)

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance is on."""
        return self.guidance_scale is not None and self.guidance_scale > 1.0

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON values, without the media; `from_dict` restores them."""
        return {name: _plain(getattr(self, name)) for name in STORED}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GenerationRequest:
        """See `to_dict`. Raises InvalidField; TypeError for names that are no fields."""
        given = dict(values)
        for name in ("pyramid_steps", "image_noise_sigma", "video_noise_sigma"):
            if isinstance(given.get(name), list):
                given[name] = tuple(given[name])
        if "prompt_schedule" in given:
            given["prompt_schedule"] = tuple(ScheduledPrompt(**entry) for entry in given["prompt_schedule"])
        if "loras" in given:
            given["loras"] = tuple(LoraWeight(**entry) for entry in given["loras"])
        return cls(**given)


FIELDS = frozenset(entry.name for entry in fields(GenerationRequest))
STORED = tuple(entry.name for entry in fields(GenerationRequest) if entry.name not in MEDIA)


def check_prompt(name: str, value: object) -> None:
    """Raises InvalidField unless the text can be a prompt."""
    allowed = f"1 to {MAX_PROMPT_CHARS:,} characters, not only white space, no NUL"
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise InvalidField(name, value, allowed)
    if len(value) > MAX_PROMPT_CHARS:
        raise InvalidField(name, value, f"{allowed} (this one has {len(value):,})")


def check_size(name: str, value: object, multiple: int) -> None:
    """Raises InvalidField, naming the nearest sizes, unless the value is a positive multiple."""
    allowed = f"a positive multiple of {multiple}"
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise InvalidField(name, value, allowed)
    if value % multiple:
        lower = value // multiple * multiple
        nearest = [size for size in (lower, lower + multiple) if size > 0]
        raise InvalidField(name, value, f"{allowed}; nearest: {' or '.join(map(str, nearest))}")


def check_interpolation(name: str, value: object) -> None:
    """Raises InvalidField unless a prompt can take over within this many chunks."""
    _integer(name, value, 0, MAX_INTERPOLATION_CHUNKS)


def _integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidField(name, value, f"an integer from {low} to {high}")


def _number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidField(name, value, f"a number from {low:g} to {high:g}")


def _steps(steps: object) -> None:
    allowed = f"3 integers from 1 to {MAX_STEPS}, one per pyramid stage"
    if not isinstance(steps, tuple) or len(steps) != 3:
        raise InvalidField("pyramid_steps", steps, allowed)
    for step in steps:
        if isinstance(step, bool) or not isinstance(step, int) or not 1 <= step <= MAX_STEPS:
            raise InvalidField("pyramid_steps", steps, allowed)


def _sigma_range(name: str, value: object) -> None:
    numbers = isinstance(value, tuple) and all(isinstance(v, int | float) and math.isfinite(v) for v in value)
    if not numbers or len(value) != 2 or not 0.0 <= value[0] <= value[1] <= 1.0:  # type: ignore[arg-type, index]
        raise InvalidField(name, value, "two numbers, minimum and maximum, from 0 to 1")


def _schedule(schedule: object) -> None:
    if not isinstance(schedule, tuple) or not all(isinstance(entry, ScheduledPrompt) for entry in schedule):
        raise InvalidField("prompt_schedule", schedule, "a tuple of ScheduledPrompt")
    if len(schedule) > MAX_SCHEDULED_PROMPTS:
        raise InvalidField("prompt_schedule", f"{len(schedule)} prompts", f"at most {MAX_SCHEDULED_PROMPTS}")
    for number, entry in enumerate(schedule):
        name = f"prompt_schedule[{number}]"
        check_prompt(f"{name}.prompt", entry.prompt)
        _integer(f"{name}.chunk_index", entry.chunk_index, 0, MAX_CHUNKS)
        check_interpolation(f"{name}.interpolation_chunks", entry.interpolation_chunks)
        if number and entry.chunk_index < schedule[number - 1].chunk_index:
            raise InvalidField(f"{name}.chunk_index", entry.chunk_index, "at least that of the entry before")


def _loras(loras: object) -> None:
    if not isinstance(loras, tuple) or not all(isinstance(entry, LoraWeight) for entry in loras):
        raise InvalidField("loras", loras, "a tuple of LoraWeight")
    if len(loras) > MAX_LORAS:
        raise InvalidField("loras", f"{len(loras)} adapters", f"at most {MAX_LORAS}")
    for number, entry in enumerate(loras):
        if not isinstance(entry.name, str) or not entry.name or entry.name in {e.name for e in loras[:number]}:
            raise InvalidField(f"loras[{number}].name", entry.name, "a name, each at most once")
        _number(f"loras[{number}].scale", entry.scale, -MAX_LORA_SCALE, MAX_LORA_SCALE)


def _pixels(name: str, pixels: Any, height: int, width: int) -> None:
    if pixels is None:
        return
    shape = (height, width, 3) if name == "image" else ("T", height, width, 3)
    allowed = f"uint8 of shape ({', '.join(map(str, shape))})"
    found = getattr(pixels, "shape", None)
    if found is None or str(getattr(pixels, "dtype", "")) != "uint8" or len(found) != len(shape):
        raise InvalidField(name, type(pixels).__name__ if found is None else f"{pixels.dtype} {found}", allowed)
    if tuple(found[-3:]) != (height, width, 3):
        raise InvalidField(name, f"uint8 {found}", allowed)
    if name == "video" and found[0] < FRAMES_PER_CHUNK:
        raise InvalidField(name, f"{found[0]} frames", f"at least {FRAMES_PER_CHUNK} frames, one chunk")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(map(_plain, value))
    return asdict(value) if isinstance(value, ScheduledPrompt | LoraWeight) else value
