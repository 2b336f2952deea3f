"""Makes the videos of a bench that are not there yet."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench import sources
from benchmarks.bench.prompts import Prompt
from benchmarks.bench.sources import Maker, Size
from benchmarks.bench.videos import begin, video_of, write_video
from benchmarks.bench.ways import Way

REAL, COMPARED = "real", "real-compared"


@dataclass(frozen=True, kw_only=True)
class Model:
    """name: what folders and tables call it. open: yields what makes its videos. about: what tells it from others."""

    name: str
    variant: str
    open: Callable[[], AbstractContextManager[Maker]]
    about: dict[str, Any]


def model_of(text: str, size: Size, *, server: str, in_process: bool) -> Model:
    """From NAME=FOLDER or FOLDER; with a server, the name of one of its models. Raises ValueError, CheckpointError."""
    if server:
        variant = sources.variant_on(server, text)
        about = {"server": server, "model": text, **vars(size)}
        return Model(name=text, variant=variant, open=lambda: sources.service(server, text, size), about=about)
    from helios_engine.checkpoint import open_checkpoint

    name, _, path = text.rpartition("=")
    folder = Path(path)
    if REAL in (name or folder.name).split("-")[:1]:
        raise ValueError(f"checkpoint: {text!r} is not allowed; allowed: NAME=FOLDER with a name that is not {REAL}")
    make = sources.engine if in_process else sources.stack
    variant = open_checkpoint(folder).variant
    through = "engine" if in_process else "service"
    about = {"checkpoint": sources.digest(folder), "through": through, **vars(size)}
    return Model(name=name or folder.resolve().name, variant=variant, open=lambda: make(folder, size), about=about)


def make_videos(
    root: Path, model: Model, ways: Sequence[Way], prompts: Sequence[Prompt], done: Callable[[], object]
) -> dict[str, Path]:
    """The folders of a model's videos, by "NAME WAY". done: called for each video, also for one that was there."""
    folders = {f"{model.name} {way.name}": root / f"{model.name}-{way.name}" for way in ways}
    for way, folder in zip(ways, folders.values(), strict=True):
        begin(folder, model.about | {"way": way.fields})
    missing = [
        (way, folder, prompt)
        for way, folder in zip(ways, folders.values(), strict=True)
        for prompt in prompts
        if not video_of(folder, prompt).exists()
    ]
    for _ in range(len(ways) * len(prompts) - len(missing)):
        done()
    if missing:
        with model.open() as make:
            for way, folder, prompt in missing:
                write_video(folder, prompt, make(prompt, way.fields))
                done()
    return folders


def make_real(root: Path, prompts: Sequence[Prompt], size: Size, done: Callable[[], object]) -> tuple[Path, Path]:
    """The folders of real clips and of those that all others are compared with."""
    folders = (root / REAL, root / COMPARED)
    for folder in folders:
        other = folder.name == COMPARED
        begin(folder, {"through": folder.name, **vars(size)})
        make = sources.world(size, other=other)
        for prompt in prompts:
            if not video_of(folder, prompt).exists():
                write_video(folder, prompt, make(prompt, {}))
            done()
    return folders
