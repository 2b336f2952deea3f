"""Videos of a checkpoint by prompts of four lengths, measured without any download: `python -m benchmarks.bench`.

Videos are made through the service, which is started for each checkpoint, or by the engine in this process. A run that
was cut goes on. No figure of it is a score of HeliosBench; the folder of videos is what that benchmark's scripts take.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.bench.classifier import WORDS, Classifier, accuracy, kept_classifier
from benchmarks.bench.make import REAL, Model, make_real, make_videos, model_of
from benchmarks.bench.plot import plot
from benchmarks.bench.prompts import DURATIONS, Prompt, read_prompts, world_prompts, write_prompts
from benchmarks.bench.rows import measured, row, speed
from benchmarks.bench.sources import Size
from benchmarks.bench.tables import tables
from benchmarks.bench.ways import ALLOWED, Way, parse_way
from benchmarks.conditions import head, version_of
from benchmarks.records import RESULTS, write
from helios_training.small.sizes import HEIGHT, WIDTH
from helios_training.world import held_out_scenes

BUILD = Path("build") / "bench"
HELD_OUT_CLIPS = 200


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes what is missing, measures all of it, writes JSON, tables and a picture."""
    args = _parser().parse_args(arguments)
    size = Size(height=args.height, width=args.width)
    if args.csv is None:
        prompts = world_prompts(args.durations, args.prompts)
    else:
        prompts = read_prompts(args.csv, args.durations, args.prompts)
    models = [model_of(text, size, server=args.server, in_process=args.in_process) for text in args.checkpoint]
    chosen = ways_of(models, [parse_way(text) for text in args.variants])
    write_prompts(args.folder / "helios_t2v_prompts.csv", prompts)
    real = all(prompt.scene is not None for prompt in prompts)
    folders: dict[str, Path] = {}
    with Progress() as progress:
        videos = sum(map(len, chosen.values())) * len(prompts) + 2 * real * len(prompts)
        task = progress.add_task("videos", total=videos)
        compared = None
        if real:
            folders[REAL], compared = make_real(args.folder, prompts, size, lambda: progress.advance(task))
        for model in models:
            folders |= make_videos(args.folder, model, chosen[model.name], prompts, lambda: progress.advance(task))
        progress.update(task, description="measured", completed=0, total=(len(folders) + real) * len(prompts))
        classifier = kept_classifier(BUILD)
        rows = rows_of(folders, compared, prompts, classifier, lambda: progress.advance(task))
    report = {
        **head("bench", {"opencv": version_of("opencv-python-headless"), "numpy": version_of("numpy")}),
        "through": args.server or ("engine" if args.in_process else "service"),
        "size": vars(size),
        "classifier": {
            "features": list(WORDS),
            "held_out_accuracy": accuracy(classifier, held_out_scenes(), HELD_OUT_CLIPS, seed=1),
        },
        "rows": rows,
    }
    write(args.output, report)
    text = tables(report)
    args.output.with_suffix(".md").write_text(text)
    plot(report, args.output.with_suffix(".png"))
    print(text)
    print(f"written to {args.output}, with .md and .png beside it; videos in {args.folder}")


def ways_of(models: Sequence[Model], ways: Sequence[Way]) -> Mapping[str, list[Way]]:
    """By model, the ways that its variant takes. Raises ValueError for a name given twice or a way that none takes."""
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise ValueError(f"checkpoint: {', '.join(names)} are not allowed; allowed: names that differ, as NAME=FOLDER")
    for way in ways:
        if not any(way.fits(model.variant) for model in models):
            variants = ", ".join(model.variant for model in models)
            raise ValueError(f"variants: {way.name!r} is not allowed; allowed: what one of {variants} takes")
    return {model.name: [way for way in ways if way.fits(model.variant)] for model in models}


def rows_of(
    folders: Mapping[str, Path], compared: Path | None, prompts: Sequence[Prompt], classifier: Classifier, done: Any
) -> dict[str, Any]:
    """The report's rows by "NAME WAY@FRAMES", real clips among them."""
    rows: dict[str, Any] = {}
    for frames in dict.fromkeys(prompt.frames for prompt in prompts):
        chosen = [prompt for prompt in prompts if prompt.frames == frames]
        others = None if compared is None else measured(compared, chosen, classifier, None, done)
        seen = {name: measured(folder, chosen, classifier, compared, done) for name, folder in folders.items()}
        for name, ours in seen.items():
            rates = None if name == REAL else speed(folders[name], chosen)
            rows[f"{name}@{frames}"] = row(ours, seen.get(REAL), others) | {"speed": rates}
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", nargs="+", required=True, help="FOLDER or NAME=FOLDER; with --server, its models' names"
    )
    parser.add_argument("--durations", nargs="+", type=int, default=[81], help=f"frames: {DURATIONS}")
    parser.add_argument("--prompts", type=int, default=8, help="of each duration")
    parser.add_argument("--variants", nargs="+", default=["default"], help=f"ways to run a checkpoint: {ALLOWED}")
    parser.add_argument("--csv", type=Path, help="prompts with the columns id, prompt, duration (default: our world's)")
    parser.add_argument("--server", default="", help="HOST:PORT of a service that runs already")
    parser.add_argument("--in-process", action="store_true", help="by the engine in this process, without a service")
    parser.add_argument("--height", type=int, default=HEIGHT, help="pixels")
    parser.add_argument("--width", type=int, default=WIDTH, help="pixels")
    parser.add_argument("--folder", type=Path, default=BUILD / "videos", help="where the videos are kept")
    parser.add_argument("--output", type=Path, default=RESULTS / "bench-cpu.json", help="JSON; .md and .png beside it")
    return parser


if __name__ == "__main__":
    main()
