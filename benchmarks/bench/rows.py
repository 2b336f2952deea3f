"""A row of the report: the videos of one checkpoint made in one way, at one length, against real clips."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.bench.classifier import APART, Classifier, features_of
from benchmarks.bench.frechet import frechet
from benchmarks.bench.metrics import METRICS, Series, edge, measure
from benchmarks.bench.pictures import palette_of
from benchmarks.bench.prompts import Prompt
from benchmarks.bench.videos import Frames, read_frames, read_made, video_of
from helios_engine.request import FRAMES_PER_CHUNK
from helios_training.aims import Aims, score
from helios_training.world import Scene

POINTS = 48
"""Most points that a course over time has."""
FRECHET = "frechet"
Edges = Callable[[Any], Any]
"""Cuts a part out of what has a value for each frame."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All videos of one row. series: by metric, one for each video. features: (T - APART, D), one for each video.

    begins: the first chunk of each video whose caption is the world's.
    """

    frames: int
    series: Mapping[str, Sequence[Series]]
    features: Sequence[Series]
    begins: Sequence[tuple[Scene, Frames]]


def measured(
    folder: Path, prompts: Sequence[Prompt], classifier: Classifier, compared: Path | None, done: Callable[[], object]
) -> Measured:
    """Measures the videos of prompts of one length. compared: the folder of other real clips; done: called for each."""
    series: dict[str, list[Series]] = {}
    features, begins = [], []
    for prompt in prompts:
        frames = read_frames(video_of(folder, prompt))
        palette = None if compared is None else palette_of(read_frames(video_of(compared, prompt)))
        for name, values in measure(frames, prompt.scene, palette).items():
            series.setdefault(name, []).append(values)
        features.append(features_of(classifier, frames))
        if prompt.scene is not None:
            begins.append((prompt.scene, frames[:FRAMES_PER_CHUNK]))
        done()
    return Measured(frames=prompts[0].frames, series=series, features=features, begins=begins)


def row(ours: Measured, real: Measured | None, compared: Measured | None) -> dict[str, Any]:
    """Means, first and last 15 %, drift and its excess over real clips' drift, and the course over time.

    real: clips of the same captions and length; compared: others, which the Fréchet distance is taken to.
    """
    metrics = {metric.name: _of_videos(metric.of, ours.series.get(metric.name, ()), ours.frames) for metric in METRICS}
    if compared is not None:
        metrics[FRECHET] = _of_features(ours, compared)
    if real is not None:
        theirs = row(real, None, compared)["metrics"]
        for name, values in metrics.items():
            values["drift_over_real"] = _difference(values["drift"], theirs[name]["drift"])
    return {
        "frames": ours.frames,
        "videos": len(ours.features),
        "metrics": metrics,
        "captions": None if not ours.begins else _shares(score(ours.begins)),
        "course": {name: _course(series) for name, series in ours.series.items()},
    }


def speed(folder: Path, prompts: Iterable[Prompt]) -> dict[str, float]:
    """End to end, medians over videos: from the request to the last chunk, all delivered frames counted."""
    made = [read_made(folder, prompt) for prompt in prompts]
    return {
        "fps": median(each.frames / each.seconds for each in made),
        "first_chunk_s": median(each.first_chunk_s for each in made),
    }


def _of_videos(value: Callable[[Series], float | None], videos: Sequence[Series], frames: int) -> dict[str, Any]:
    size = edge(frames)
    first, last = [value(series[:size]) for series in videos], [value(series[-size:]) for series in videos]
    drifts = [_difference(a, b) for a, b in zip(first, last, strict=True)]
    return {
        "mean": _mean([value(series) for series in videos]),
        "first": _mean(first),
        "last": _mean(last),
        "drift": _mean([None if drift is None else abs(drift) for drift in drifts]),
    }


def _of_features(ours: Measured, compared: Measured) -> dict[str, Any]:
    """All videos of a row make one set, so there is one drift, not a mean of drifts."""
    size = edge(ours.frames) - APART
    parts = {"mean": slice(None), "first": slice(0, max(size, 1)), "last": slice(-max(size, 1), None)}
    found: dict[str, Any] = {}
    for name, part in parts.items():
        sets = [np.concatenate([features[part] for features in each.features]) for each in (ours, compared)]
        found[name] = frechet(*sets) if min(map(len, sets)) > 1 else None
    drift = _difference(found["last"], found["first"])
    return found | {"drift": None if drift is None else abs(drift)}


def _course(videos: Sequence[Series]) -> dict[str, list[float | None]]:
    """The mean over videos in equal parts of their length. frame: the middle of each part."""
    parts = np.array_split(np.arange(len(videos[0])), min(POINTS, max(len(videos[0]) // 3, 1)))
    together = np.stack(videos)
    values = [together[:, part][~np.isnan(together[:, part])] for part in parts]
    return {
        "frame": [float(part.mean()) for part in parts],
        "value": [float(each.mean()) if each.size else None for each in values],
    }


def _shares(aims: Aims) -> dict[str, float]:
    return {name: value for name, value in vars(aims).items() if name != "videos"}


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
