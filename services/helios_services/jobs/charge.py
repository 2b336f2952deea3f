"""What a chunk is charged: the work that it takes, told as the time of default video that takes as much work.

Work is frames x pixels x steps. A chunk has 33 frames; its default is 384x640 pixels and the model's own steps.
Such a chunk is charged its play time at 24 frames per second, whatever rate it is played at. A job that starts from an
upload is charged for the upload's decoding and encoding with its first chunk.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helios_engine.request import FRAMES_PER_CHUNK
from helios_engine.variants import VARIANTS

DEFAULT_FPS, DEFAULT_PIXELS = 24, 384 * 640
CHUNK_MS = math.ceil(FRAMES_PER_CHUNK / DEFAULT_FPS * 1000)
"""The charge of a default chunk, and the unit of fair shares."""
STAGE_WORK = (0.187, 0.326, 1.0)
"""Work of a step in each pyramid stage, coarse to fine, as a share of the last: 66.5, 116 and 356 TFLOP at 384x640."""
UPLOAD_CHUNKS = {"": 0, "image": 1, "video": 8}
"""What it takes to start from an upload of each kind, in default chunks. Encoding one for the model is less than one of
them. Decoding a clip may take 45 s of a processor (`media.cpu_s`); a processor's second counts a quarter of a GPU's."""


@dataclass(frozen=True)
class Charge:
    """Milliseconds of default video: of a job's first chunk, and of each of the others."""

    first_chunk_ms: int
    chunk_ms: int


def charge_of(params: Mapping[str, Any], upload: str = "") -> Charge:
    """The charge of a request with all defaults filled in.

    params: fields of GenerationRequest. upload: what the job starts from, a key of UPLOAD_CHUNKS.
    """
    pixels = params.get("height", 384) * params.get("width", 640)
    chunk_ms = CHUNK_MS * (pixels / DEFAULT_PIXELS) * (_step_work(params) / _default_step_work(params))
    amplified = 2 if params.get("amplify_first_chunk") else 1
    first_chunk_ms = amplified * chunk_ms + UPLOAD_CHUNKS[upload] * CHUNK_MS
    return Charge(first_chunk_ms=_whole(first_chunk_ms), chunk_ms=_whole(chunk_ms))


def _whole(milliseconds: float) -> int:
    """Rounded up, but not for what binary fractions are off by."""
    return math.ceil(round(milliseconds, 6))


def _step_work(params: Mapping[str, Any]) -> float:
    """Steps of a chunk, each by its work; with guidance each is taken twice."""
    passes = 2 if (params.get("guidance_scale") or 1.0) > 1.0 else 1
    stages: Sequence[int] | None = params.get("pyramid_steps")
    if stages:
        return passes * sum(steps * work for steps, work in zip(stages, STAGE_WORK, strict=True))
    return float(passes * (params.get("num_inference_steps") or 1))


def _default_step_work(params: Mapping[str, Any]) -> float:
    """The same of the model's defaults. The model is the one that has a default for just these fields."""
    for variant in VARIANTS.values():
        if all(params.get(name) is not None for name in variant.defaults):
            return _step_work(variant.defaults)
    return _step_work({})
