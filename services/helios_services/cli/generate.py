"""`helios generate`: a video from a prompt, an image, a clip or another video, in this process or from a server."""

import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from helios_engine.errors import InvalidField
from helios_engine.extras import needs
from helios_engine.prompts import DEFAULT_INTERPOLATION_CHUNKS, ScheduledPrompt
from helios_engine.request import LoraWeight
from helios_services.cli.errors import UserError

PRIORITIES = ("interactive", "normal", "batch")
STEPS_ALLOWED = "3 integers separated by commas, for example 2,2,2"
PROMPT_AT_ALLOWED = "CHUNK:TEXT, for example '4:the rain stops'"
LORA_ALLOWED = "NAME or NAME:SCALE (in this process: FILE or FILE:SCALE)"


def generate(
    prompt: Annotated[str, typer.Argument(help="What the video shows.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="MP4 file to write.")] = Path("out.mp4"),
    server: Annotated[
        str,
        typer.Option(help="HOST:PORT of a gateway (or HELIOS_SERVER). Unset, or with --checkpoint: in this process."),
    ] = "",
    priority: Annotated[str, typer.Option(help="interactive, normal or batch (server).")] = "normal",
    frames: Annotated[int, typer.Option(help="Frames; rounded up to a multiple of 33.")] = 132,
    height: Annotated[int | None, typer.Option(help="A multiple of 64 (Base: 16). Default 384.")] = None,
    width: Annotated[int | None, typer.Option(help="A multiple of 64 (Base: 16). Default 640.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same video.")] = 0,
    fps: Annotated[int, typer.Option(help="Frames per second of the file.")] = 24,
    image: Annotated[Path | None, typer.Option(help="Image to animate (PNG, JPEG, WebP).")] = None,
    video: Annotated[Path | None, typer.Option(help="Clip to continue (MP4, WebM).")] = None,
    continue_from: Annotated[
        str, typer.Option(help="Video to continue: a job id (server) or a --save-state file (in-process).")
    ] = "",
    save_state: Annotated[Path | None, typer.Option(help="File to continue from later (in-process).")] = None,
    prompt_at: Annotated[
        list[str] | None, typer.Option(help="CHUNK:TEXT, a prompt that takes over at a chunk. Can be repeated.")
    ] = None,
    interpolate: Annotated[
        int, typer.Option(help="Chunks over which such a prompt takes over.")
    ] = DEFAULT_INTERPOLATION_CHUNKS,
    negative_prompt: Annotated[str | None, typer.Option(help="What the video should not show (Base, Mid).")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Classifier-free guidance (Base, Mid).")] = None,
    steps: Annotated[str | None, typer.Option(help="Steps of the pyramid stages, as 2,2,2 (Mid, Distilled).")] = None,
    inference_steps: Annotated[int | None, typer.Option(help="Denoising steps (Base).")] = None,
    shift: Annotated[float | None, typer.Option(help="Strength of the schedule's time shift.")] = None,
    zero_init: Annotated[bool | None, typer.Option(help="CFG-Zero*: first steps predict zero (Mid).")] = None,
    amplify_first_chunk: Annotated[
        bool | None, typer.Option(help="Twice the steps in the first chunk (Distilled).")
    ] = None,
    keep_first_frame: Annotated[bool | None, typer.Option(help="First frame stays in the history.")] = None,
    skip_first_chunk: Annotated[bool | None, typer.Option(help="Anchor is taken from the second chunk.")] = None,
    lora: Annotated[list[str] | None, typer.Option(help="NAME[:SCALE] of a LoRA adapter. Can be repeated.")] = None,
    checkpoint: Annotated[
        str, typer.Option(help="Checkpoint folder or Hub id (in-process; or HELIOS_MODEL__CHECKPOINT).")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:NUMBER (in-process).")] = "auto",
) -> None:
    """Generate a video."""
    given: dict[str, Any] = {
        "num_frames": frames,
        "height": height,
        "width": width,
        "seed": seed,
        "fps": fps,
        "negative_prompt": negative_prompt,
        "guidance_scale": guidance_scale,
        "pyramid_steps": None if steps is None else _steps(steps),
        "num_inference_steps": inference_steps,
        "shift": shift,
        "zero_init": zero_init,
        "amplify_first_chunk": amplify_first_chunk,
        "keep_first_frame": keep_first_frame,
        "skip_first_chunk": skip_first_chunk,
        "prompt_schedule": _schedule(prompt_at or [], interpolate),
        "loras": tuple(map(_lora, lora or [])),
    }
    fields = {name: value for name, value in given.items() if value not in (None, ())}
    if priority not in PRIORITIES:
        raise InvalidField("priority", priority, ", ".join(PRIORITIES))
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise InvalidField("device", device, "auto, cpu, cuda or cuda:NUMBER")
    if not checkpoint and save_state is None:
        server = server or os.environ.get("HELIOS_SERVER", "")
    if server:
        from helios_services.cli.remote import generate_remotely

        if save_state is not None:
            raise UserError("save-state: is for generation in this process; a server keeps a job's state by itself")
        generate_remotely(
            prompt, fields, output, server, priority=priority, image=image, video=video, continue_from=continue_from
        )
    else:
        with needs("engine", "helios generate without --server"):
            from helios_services.cli.local import Local, generate_here

        source = Path(continue_from) if continue_from else None
        local = Local(checkpoint=checkpoint, device=device, image=image, video=video, state=source, save=save_state)
        generate_here(prompt, fields, output, local)


def _steps(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InvalidField("steps", text, STEPS_ALLOWED) from None


def _schedule(entries: list[str], interpolate: int) -> tuple[ScheduledPrompt, ...]:
    schedule = []
    for entry in entries:
        chunk, colon, text = entry.partition(":")
        if not colon or not chunk.strip().isdecimal():
            raise InvalidField("prompt-at", entry, PROMPT_AT_ALLOWED)
        schedule.append(ScheduledPrompt(chunk_index=int(chunk), prompt=text.strip(), interpolation_chunks=interpolate))
    return tuple(sorted(schedule, key=lambda prompt: prompt.chunk_index))


def _lora(entry: str) -> LoraWeight:
    name, colon, scale = entry.rpartition(":")
    try:
        return LoraWeight(name=name, scale=float(scale)) if colon else LoraWeight(name=entry)
    except ValueError:
        raise InvalidField("lora", entry, LORA_ALLOWED) from None
