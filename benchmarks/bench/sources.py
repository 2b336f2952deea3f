"""Where videos come from: the service, the engine in this process, or the world itself."""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench.prompts import Prompt
from helios_engine.request import FRAMES_PER_CHUNK, GenerationRequest
from helios_services.media.encoder import EncoderSettings, encode_chunk
from helios_training.aims import FIRST_SEED
from helios_training.world import draw_clip

Pieces = Iterator[tuple[bytes, int]]
"""Init segment and fragments of an fMP4, each with its number of frames."""
Maker = Callable[[Prompt, Mapping[str, Any]], Pieces]
"""Makes the video of a prompt with further fields of a request."""
FPS = 24
OTHER_SEEDS = 1_000_000
"""Added to the seeds of clips that others are compared with."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of pictures, in pixels."""

    height: int
    width: int


@contextmanager
def engine(checkpoint: Path, size: Size) -> Iterator[Maker]:
    """The pipeline in this process, in float32, with H.264 as the service encodes it."""
    import torch

    from helios_engine.pipeline import HeliosPipeline

    pipeline = HeliosPipeline.from_pretrained(checkpoint, dtype=torch.float32)

    def make(prompt: Prompt, fields: Mapping[str, Any]) -> Pieces:
        request = GenerationRequest(prompt=prompt.text, **_common(prompt, size), **fields)
        return encoded(chunk.frames for chunk in pipeline.generate(request))

    yield make


@contextmanager
def stack(checkpoint: Path, size: Size) -> Iterator[Maker]:
    """The whole service on this machine, for as long as it is needed."""
    from helios_services.config import ServiceConfig
    from helios_services.stack import running_stack

    with tempfile.TemporaryDirectory(prefix="helios-bench-") as folder:
        config = ServiceConfig.model_validate(
            {
                "state_dir": Path(folder) / "state",
                "log_level": "warning",
                "model": {"checkpoint": str(checkpoint.resolve()), "dtype": "float32"},
                "gateway": {"port": 0, "http_port": 0, "metrics_port": 0},
                "dispatcher": {"metrics_port": 0},
            }
        )
        with running_stack(config) as addresses, service(addresses.grpc, "", size) as make:
            yield make


@contextmanager
def service(target: str, model: str, size: Size) -> Iterator[Maker]:
    """A service that runs already, HOST:PORT, as its client sees it. model: empty for its default."""
    from helios_services.client import HeliosClient

    with HeliosClient(target) as client:

        def make(prompt: Prompt, fields: Mapping[str, Any]) -> Pieces:
            job = client.submit(prompt.text, model=model, **_common(prompt, size), **fields)
            for segment in client.stream(job.id):
                yield segment.data, 0 if segment.info is None else segment.info.num_frames

        yield make


def variant_on(target: str, model: str) -> str:
    """Which variant a running service's model is. Raises ValueError for a model that it does not have."""
    from helios_services.client import HeliosClient

    with HeliosClient(target) as client:
        variants = {each.name: each.variant for each in client.models()}
    if model not in variants:
        raise ValueError(f"checkpoint: {model!r} is not allowed; allowed with --server: {', '.join(variants)}")
    return variants[model]


def world(size: Size, *, other: bool = False) -> Maker:
    """Real clips: the prompts' scenes, drawn. other: from other seeds, for comparison."""

    def make(prompt: Prompt, fields: Mapping[str, Any]) -> Pieces:
        assert prompt.scene is not None
        scene, seed = prompt.scene, FIRST_SEED + prompt.id + (OTHER_SEEDS if other else 0)
        return encoded(
            draw_clip(
                scene, seed, frames=FRAMES_PER_CHUNK, height=size.height, width=size.width, first_frame=first
            ).frames
            for first in range(0, prompt.frames, FRAMES_PER_CHUNK)
        )

    return make


def encoded(chunks: Iterable[Any]) -> Pieces:
    """Frames, (33, H, W, 3) uint8 each, as the service encodes them."""
    for index, frames in enumerate(chunks):
        chunk = encode_chunk(frames, index=index, fps=FPS, settings=EncoderSettings())
        if not index:
            yield chunk.init_segment, 0
        yield chunk.fragment, chunk.num_frames


def digest(checkpoint: Path) -> str:
    """Tells checkpoints apart by what their files hold."""
    found = hashlib.sha256()
    for file in sorted(file for file in checkpoint.rglob("*") if file.is_file()):
        found.update(str(file.relative_to(checkpoint)).encode())
        with file.open("rb") as data:
            found.update(hashlib.file_digest(data, "sha256").digest())
    return found.hexdigest()[:16]


def _common(prompt: Prompt, size: Size) -> dict[str, Any]:
    return {
        "num_frames": prompt.frames,
        "height": size.height,
        "width": size.width,
        "seed": FIRST_SEED + prompt.id,
        "fps": FPS,
    }
