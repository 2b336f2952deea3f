"""`helios train` and `helios encode`: the stages of the small Helios from the command line."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Literal, ParamSpec, TypeVar

import typer

from helios_engine.extras import needs

app = typer.Typer(help="Train the small Helios: vae, then base, mid, distill.", no_args_is_help=True)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _brought_by_train(command: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Names the extra where a package that training needs is not installed."""

    @wraps(command)
    def run(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        with needs("train", "training"):
            return command(*arguments, **options)

    return run


Run = Annotated[Path, typer.Option("--run", help="Folder of the run: snapshot, log, metrics. A run there goes on.")]
Steps = Annotated[int, typer.Option(help="Steps of the whole run, over all its starts.")]
Minutes = Annotated[float | None, typer.Option(help="Stop after so many; the same command goes on.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Latents = Annotated[Path, typer.Option(help="Folder that `helios encode` has filled.")]
Out = Annotated[Path, typer.Option(help="Checkpoint folder to write.")]
Seed = Annotated[int, typer.Option(min=0)]


@app.command()
@_brought_by_train
def vae(
    run: Run,
    out: Out,
    phase: Annotated[Literal["frames", "clips", "decoder"], typer.Option(help="What is trained.")] = "frames",
    start: Annotated[
        Path | None, typer.Option(help="A snapshot (run.safetensors) or checkpoint to start from.")
    ] = None,
    steps: Steps = 2500,
    minutes: Minutes = None,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """The small VAE: single frames, then clips; `decoder` keeps the encoder, so that latents stay what they are."""
    from helios_training.export import export_vae
    from helios_training.tasks.vae import VAETask

    settings = _settings(run, steps, minutes, device)
    _train(VAETask(phase, start=start, device=device, seed=seed), settings)
    export_vae(settings.snapshot, out)


@app.command()
@_brought_by_train
def base(
    run: Run,
    latents: Latents,
    out: Out,
    vae: Annotated[Path, typer.Option(help="Checkpoint folder with the vae/ that encoded the latents.")],
    steps: Steps = 20_000,
    minutes: Minutes = None,
    samples: Annotated[int, typer.Option(min=1, help="Of a batch.")] = 8,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Stage 1: the DiT and the text encoder, from nothing."""
    from helios_training.export import export_model
    from helios_training.tasks.base import BaseTask

    settings = _settings(run, steps, minutes, device)
    _train(BaseTask(latents, samples=samples, device=device, seed=seed), settings)
    export_model(settings.snapshot, "base", out, "base", vae)


@app.command()
@_brought_by_train
def mid(
    run: Run,
    latents: Latents,
    out: Out,
    base: Annotated[Path, typer.Option(help="Checkpoint of stage 1.")],
    steps: Steps = 20_000,
    minutes: Minutes = None,
    samples: Annotated[int, typer.Option(min=1, help="Of a batch.")] = 16,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Stage 2: the pyramid, from Base."""
    from helios_training.export import export_model
    from helios_training.tasks.mid import MidTask

    settings = _settings(run, steps, minutes, device)
    _train(MidTask(base, latents, samples=samples, device=device, seed=seed), settings)
    export_model(settings.snapshot, "mid", out, "mid", base)


@app.command()
@_brought_by_train
def distill(
    run: Run,
    out: Out,
    base: Annotated[Path, typer.Option(help="Checkpoint of stage 1, the teacher.")],
    mid: Annotated[Path, typer.Option(help="Checkpoint of stage 2, from which the student starts.")],
    latents: Annotated[Path | None, typer.Option(help="Of distribution matching.")] = None,
    paths: Annotated[Path | None, typer.Option(help="Of the ODE start: what `helios train paths` wrote.")] = None,
    steps: Steps = 5000,
    minutes: Minutes = None,
    samples: Annotated[int, typer.Option(min=1, help="Of a batch.")] = 4,
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Stage 3: with --paths the ODE start, which writes a checkpoint of variant mid; with --latents the matching."""
    from helios_training.export import export_model
    from helios_training.tasks.distill import DistillTask, ODETask

    settings = _settings(run, steps, minutes, device)
    if (latents is None) == (paths is None):
        raise typer.BadParameter("both or neither given; allowed: one of --latents and --paths")
    if paths is not None:
        _train(ODETask(mid, paths, samples=samples, device=device, seed=seed), settings)
        export_model(settings.snapshot, "ode", out, "mid", mid)
    elif latents is not None:
        task = DistillTask(base, mid, latents, total_steps=steps, samples=samples, device=device, seed=seed)
        _train(task, settings)
        export_model(settings.snapshot, "student", out, "distilled", mid)


@app.command()
@_brought_by_train
def paths(
    mid: Annotated[Path, typer.Option(help="Checkpoint of stage 2.")],
    out: Annotated[Path, typer.Option(help="Folder to fill; what is there is not made again.")],
    videos: Annotated[int, typer.Option(min=1)] = 200,
    seed: Seed = 0,
) -> None:
    """The teacher's paths that the ODE start is trained on."""
    from helios_training.stages.path_files import make_paths

    for file in make_paths(mid, out, videos=videos, seed=seed):
        typer.echo(file)


@app.command()
@_brought_by_train
def mini(
    root: Annotated[Path, typer.Option(help="Folder of runs, latents and checkpoints; what is there is gone on from.")],
    scale: Annotated[float, typer.Option(min=1e-4, help="Times the steps, clips and videos.")] = 1.0,
    minutes: Minutes = None,
    device: Device = "cpu",
) -> None:
    """Everything, from nothing to the small Distilled in ROOT/distilled."""
    from dataclasses import asdict

    from helios_training.mini import Mini, Sizes

    sizes = Sizes(**{name: max(round(scale * count), 1) for name, count in asdict(Sizes()).items()})
    typer.echo(Mini(root=root, sizes=sizes, device=device, minutes=minutes, say=typer.echo).make())


@app.command()
@_brought_by_train
def aims(
    checkpoint: Annotated[Path, typer.Argument(help="Of any variant.")],
    videos: Annotated[int, typer.Option(min=1, max=48, help="Held-out captions.")] = 48,
    chunks: Annotated[int, typer.Option(min=1, help="Of 33 frames, for each video.")] = 1,
) -> None:
    """What share of a checkpoint's videos show what their captions say."""
    from dataclasses import asdict

    from helios_training.aims import generated, score

    for name, value in asdict(score(generated(checkpoint, videos=videos, chunks=chunks))).items():
        typer.echo(f"{name:<10} {value:.3g}")


@app.command()
@_brought_by_train
def pack(
    run: Run,
    out: Annotated[Path, typer.Option(help="File to write; as RUN/run.safetensors it is gone on from.")],
) -> None:
    """A run's snapshot in less than a third of the bytes, to be kept in a repository."""
    from helios_training.snapshot import pack_snapshot

    pack_snapshot(run / "run.safetensors", out)


@app.command()
@_brought_by_train
def plan(
    stage: Annotated[Literal["base", "mid", "ode", "distill"], typer.Argument()],
    model: Annotated[Literal["small", "14b"], typer.Option()] = "14b",
    gpus: Annotated[int, typer.Option(help="Over which everything but activations is sharded.")] = 8,
    height: Annotated[int, typer.Option(help="Pixels.")] = 384,
    width: Annotated[int, typer.Option(help="Pixels.")] = 640,
    samples: Annotated[int, typer.Option(min=1, help="On each GPU.")] = 1,
) -> None:
    """What a stage will hold on each GPU, without loading anything."""
    from dataclasses import asdict

    from helios_training.plan import plan as make_plan

    made = make_plan(model, stage, gpus, height=height, width=width, samples=samples)
    for name, size in {**asdict(made), "total": made.total}.items():
        typer.echo(f"{name:<12} {size / 1e9:9.2f} GB")


@_brought_by_train
def encode(
    out: Annotated[Path, typer.Option(help="Folder to fill; what is there is not encoded again.")],
    vae: Annotated[Path, typer.Option(help="Checkpoint folder with a vae/.")],
    metadata: Annotated[
        Path | None, typer.Argument(help="JSON list of clips; without it, clips of the small world.")
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="Of the world.")] = 500,
    first: Annotated[int, typer.Option(min=0, help="Number of the world's first clip.")] = 0,
    sections: Annotated[int, typer.Option(min=1, help="Of 33 frames, for each of the world's clips.")] = 3,
) -> None:
    """Encodes clips to latents with the checkpoint's VAE."""
    from helios_training.data.encode import encode_metadata, encode_world, load_encoder
    from helios_training.small.sizes import HEIGHT, WIDTH

    encoder = load_encoder(vae)
    if metadata is not None:
        written = encode_metadata(encoder, metadata, out)
    else:
        indices = range(first, first + clips)
        written = encode_world(encoder, out, indices, sections=sections, height=HEIGHT, width=WIDTH)
    count = sum(1 for _ in written)
    typer.echo(f"{count} clips encoded to {out}")


def register(helios: typer.Typer) -> None:
    """Adds the commands to `helios` (an entry point: the command line knows nothing of training)."""
    helios.add_typer(app, name="train")
    helios.command("encode")(encode)


def _settings(run: Path, steps: int, minutes: float | None, device: str):  # type: ignore[no-untyped-def]
    import torch

    from helios_training.trainer import RunSettings

    torch.set_num_threads(min(torch.get_num_threads(), os.cpu_count() or 1))
    return RunSettings(
        folder=run,
        steps=steps,
        minutes=minutes,
        device=device,
        autocast=torch.bfloat16 if device.startswith("cuda") else None,
        sample_every_s=600.0,
    )


def _train(task, settings) -> None:  # type: ignore[no-untyped-def]
    from helios_training.trainer import train

    done = train(task, settings)
    typer.echo(f"{done} of {settings.steps} steps done; {settings.snapshot}")
