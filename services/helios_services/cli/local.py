"""`helios generate` without a server: the model in this process, no Ray, no Redis."""

import mimetypes
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from helios_engine.checkpoint import open_checkpoint
from helios_engine.pipeline import HeliosPipeline
from helios_engine.request import FRAMES_PER_CHUNK, GenerationRequest
from helios_engine.sampling.conditioning import conditioned_state
from helios_engine.sampling.state import DenoiseState
from helios_engine.vae.encoder import HISTORY_CHUNKS
from helios_engine.variants import make_request
from helios_services.cli.errors import UserError
from helios_services.cli.output import written
from helios_services.cli.progress import chunk_progress
from helios_services.cli.stage_watch import StageWatch
from helios_services.config import ServiceConfig, load_config
from helios_services.file_kinds import by_name
from helios_services.media.encoder import EncoderSettings, encode_chunk
from helios_services.media.inputs import decode_clip, decode_image
from helios_services.media.remux import remux
from helios_services.media.sandbox_check import check_sandbox, for_one_machine


@dataclass(frozen=True, kw_only=True)
class Local:
    """Where the model is and what the video starts from. state, save: files with a sampling state."""

    checkpoint: str
    device: str
    image: Path | None = None
    video: Path | None = None
    state: Path | None = None
    save: Path | None = None


def generate_here(prompt: str, fields: Mapping[str, Any], output: Path, local: Local) -> None:
    """Generates a video in this process, shows progress and writes the file.

    fields: of GenerationRequest, where they are not the model's defaults. Raises UserError when a file cannot be read
    or written or options exclude each other, InvalidField for a request that the model cannot do, CheckpointError.
    """
    with ExitStack() as files:
        file = files.enter_context(written(output))
        save = None if local.save is None else files.enter_context(written(local.save, "save-state"))
        size = _generate(prompt, fields, local, file, save)
    print(f"wrote {output} ({size:,} bytes)")


def _generate(prompt: str, fields: Mapping[str, Any], local: Local, file: Path, save: Path | None) -> int:
    config = load_config()
    folder = _checkpoint(local, config)
    previous = None if local.state is None else _read_state(local.state)
    if previous is not None:
        fields = {"height": previous.request.height, "width": previous.request.width} | dict(fields)
    request = make_request(open_checkpoint(folder).variant, prompt=prompt, **fields)
    settings = EncoderSettings(crf=config.decoder.crf, preset=config.decoder.preset)
    pieces: list[bytes] = []
    watch = StageWatch()
    with chunk_progress(request.num_chunks) as progress:
        pipeline = _pipeline(request, folder, config, local)
        state = _first_state(request, pipeline, config, local) if previous is None else _continued(previous, request)
        for made in pipeline.denoise(request, state, timed=watch):
            with watch("decode"):
                frames = pipeline.decoder.decode_for_video(made.latents)
            with watch("encode"):
                chunk = encode_chunk(frames, index=made.index, fps=request.fps, settings=settings)
            pieces += [chunk.fragment] if made.index else [chunk.init_segment, chunk.fragment]
            duration_s = chunk.num_frames / request.fps
            progress.chunk(num_frames=chunk.num_frames, duration_s=duration_s, stage_s=watch.taken())
    size = remux(pieces, file)
    if save is not None:
        save.write_bytes(made.state.to_bytes())
    progress.summary()
    return size


def _checkpoint(local: Local, config: ServiceConfig) -> str:
    """The folder or Hub id. Raises UserError for options that cannot be met."""
    if local.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            f"device: {local.device!r} is not allowed; allowed: auto and cpu, for torch finds no GPU on this machine"
        )
    given = [name for name in ("image", "video", "state") if getattr(local, name) is not None]
    if len(given) > 1:
        raise UserError(f"{', '.join(given)}: are given together; allowed: one of image, video and continue-from")
    checkpoint = local.checkpoint or config.model.checkpoint
    if not checkpoint:
        raise UserError("checkpoint: is empty; allowed: a checkpoint folder (--checkpoint or HELIOS_MODEL__CHECKPOINT)")
    return checkpoint


def _pipeline(request: GenerationRequest, folder: str, config: ServiceConfig, local: Local) -> HeliosPipeline:
    # on the command line, an adapter's file is its name
    files = {lora.name: config.model.loras.get(lora.name, lora.name) for lora in request.loras}
    dtype = None if config.model.dtype == "auto" else getattr(torch, config.model.dtype)
    device = None if local.device == "auto" else local.device
    size = (request.height, request.width)
    return HeliosPipeline.from_pretrained(folder, device=device, dtype=dtype, loras=files, size=size)


def _first_state(
    request: GenerationRequest, pipeline: HeliosPipeline, config: ServiceConfig, local: Local
) -> DenoiseState:
    file = local.image or local.video
    if file is None:
        return DenoiseState.initial(request)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    content_type = by_name(file.name) or mimetypes.guess_type(file.name)[0] or ""
    size: dict[str, int] = {"height": request.height, "width": request.width}
    limits = for_one_machine(config.media)
    check_sandbox(limits)
    if local.image is not None:
        return conditioned_state(
            request, pipeline.encoder.condition_on_image(decode_image(data, content_type, **size, limits=limits))
        )
    keep = HISTORY_CHUNKS * FRAMES_PER_CHUNK
    clip = decode_clip(data, content_type, **size, fps=request.fps, keep_last=keep, limits=limits)
    return conditioned_state(request, pipeline.encoder.condition_on_video(clip.first, clip.tail, clip.num_frames))


def _continued(previous: DenoiseState, request: GenerationRequest) -> DenoiseState:
    try:
        return previous.continued(request)
    except ValueError as error:
        raise UserError(str(error)) from None


def _read_state(file: Path) -> DenoiseState:
    try:
        return DenoiseState.from_bytes(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    except Exception as error:  # safetensors raises an error of its own
        raise UserError(f"{file}: is no file that --save-state wrote: {error}") from None
