"""`helios generate`: a video from a prompt, in this process or from a server."""

import time
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from helios_engine.errors import InvalidField
from helios_engine.request import GenerationRequest
from helios_services.cli.errors import UserError
from helios_services.cli.progress import chunk_progress, stages_of
from helios_services.config import load_config

STEPS_ALLOWED = "3 integers separated by commas, for example 2,2,2"


def generate(
    prompt: Annotated[str, typer.Argument(help="What the video shows.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="MP4 file to write.")] = Path("out.mp4"),
    server: Annotated[str, typer.Option(help="HOST:PORT of a gateway. Unset: generate in this process.")] = "",
    frames: Annotated[int, typer.Option(help="Frames; rounded up to a multiple of 33.")] = 132,
    height: Annotated[int, typer.Option(help="A multiple of 64.")] = 384,
    width: Annotated[int, typer.Option(help="A multiple of 64.")] = 640,
    seed: Annotated[int, typer.Option(help="Same seed, same video.")] = 0,
    steps: Annotated[str, typer.Option(help="Denoising steps of the three pyramid stages.")] = "2,2,2",
    amplify_first_chunk: Annotated[bool, typer.Option(help="Twice the steps in the first chunk.")] = False,
    fps: Annotated[int, typer.Option(help="Frames per second of the file.")] = 24,
    checkpoint: Annotated[str, typer.Option(help="Checkpoint folder (in-process; or HELIOS_MODEL__CHECKPOINT).")] = "",
    device: Annotated[str, typer.Option(help="Torch device (in-process).")] = "cpu",
) -> None:
    """Generate a video."""
    request = GenerationRequest(
        prompt=prompt,
        num_frames=frames,
        height=height,
        width=width,
        seed=seed,
        pyramid_steps=_steps(steps),
        amplify_first_chunk=amplify_first_chunk,
        fps=fps,
    )
    if not output.parent.is_dir():
        raise UserError(f"output: {str(output)!r}: the folder {str(output.parent)!r} does not exist")
    if server:
        generate_remotely(request, output, server)
    else:
        _generate_here(request, output, checkpoint, device)


def generate_remotely(request: GenerationRequest, output: Path, server: str) -> None:
    """Submits to a gateway, shows chunks as they arrive, downloads the finished file."""
    from helios_services.client import HeliosClient

    params: dict[str, Any] = {name: getattr(request, name) for name in request.__dataclass_fields__ if name != "prompt"}
    with HeliosClient(server) as client:
        job = client.submit(request.prompt, priority="interactive", **params)
        with chunk_progress(job.chunks_total) as progress:
            for segment in client.stream(job.id):
                if segment.info is not None:
                    progress.chunk(
                        num_frames=segment.info.num_frames,
                        duration_s=segment.info.duration.ToMicroseconds() / 1e6,
                        stage_s=stages_of(segment.info),
                    )
        *_, ended = client.watch(job.id)
        if ended.HasField("error"):
            raise UserError(f"job {job.id} failed: {ended.error.reason}: {ended.error.message}")
        size = client.download(job.id, output)
    progress.summary()
    print(f"wrote {output} ({size:,} bytes, job {job.id})")


def _generate_here(request: GenerationRequest, output: Path, checkpoint: str, device: str) -> None:
    import torch

    from helios_engine.denoiser import Denoiser
    from helios_engine.state import DenoiseState
    from helios_engine.text import TextEncoder
    from helios_engine.vae import VideoDecoder
    from helios_services.media.encoder import EncoderSettings, encode_chunk
    from helios_services.media.remux import remux

    config = load_config()
    folder = checkpoint or config.model.checkpoint
    if not folder:
        raise UserError("checkpoint: is empty; allowed: a checkpoint folder (--checkpoint or HELIOS_MODEL__CHECKPOINT)")
    dtype = getattr(torch, config.model.dtype)
    text = TextEncoder.from_pretrained(folder, device=device, dtype=dtype)
    denoiser = Denoiser.from_pretrained(folder, device=device, dtype=dtype)
    decoder = VideoDecoder.from_pretrained(folder, device=device)
    settings = EncoderSettings(crf=config.decoder.crf, preset=config.decoder.preset)
    pieces: list[bytes] = []
    with chunk_progress(request.num_chunks) as progress:
        marks = [time.perf_counter()]
        prompt_embeds = text.encode([request.prompt])
        state = DenoiseState.initial(request)
        text_s = {"text": time.perf_counter() - marks[0]}
        while state.chunk_index < request.num_chunks:
            index, marks = state.chunk_index, [time.perf_counter()]
            latents, state = denoiser.denoise_chunk(state, prompt_embeds)
            marks.append(time.perf_counter())
            video = decoder.decode(latents)
            marks.append(time.perf_counter())
            chunk = encode_chunk(video, index=index, fps=request.fps, settings=settings)
            marks.append(time.perf_counter())
            pieces += [chunk.fragment] if index else [chunk.init_segment, chunk.fragment]
            seconds = (after - before for before, after in pairwise(marks))
            spent = dict(zip(("denoise", "decode", "encode"), seconds, strict=True))
            progress.chunk(
                num_frames=chunk.num_frames,
                duration_s=chunk.num_frames / request.fps,
                stage_s=spent if index else text_s | spent,
            )
    size = remux(pieces, output)
    progress.summary()
    print(f"wrote {output} ({size:,} bytes)")


def _steps(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InvalidField("steps", text, STEPS_ALLOWED) from None
