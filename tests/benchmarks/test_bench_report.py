"""From videos to a report: drift beyond real clips', tables, the picture; and the command from end to end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench import __main__ as command
from benchmarks.bench.classifier import Classifier
from benchmarks.bench.metrics import METRICS
from benchmarks.bench.rows import Measured, row
from benchmarks.bench.tables import tables
from helios_engine.loading.tiny import write_tiny

FRAMES = 100


def with_course(*courses: np.ndarray) -> Measured:
    series = {metric.name: [np.asarray(course, dtype=float) for course in courses] for metric in METRICS}
    features = [np.random.default_rng(n).normal(size=(FRAMES - 4, 3)) for n, _ in enumerate(courses)]
    return Measured(frames=FRAMES, series=series, features=features, begins=[])


def test_drift_is_the_first_against_the_last_15_percent_without_what_real_clips_drift() -> None:
    up, down = np.linspace(0, 99, FRAMES), np.linspace(99, 0, FRAMES)
    real = with_course(np.where(np.arange(FRAMES) < 50, 5.0, 7.0), np.full(FRAMES, 6.0))
    found = row(with_course(up, down), real, None)["metrics"]["sharpness"]
    assert found["mean"] == pytest.approx(49.5)
    assert (found["first"], found["last"]) == (pytest.approx(49.5), pytest.approx(49.5))
    assert found["drift"] == pytest.approx(85.0)  # of each video, so that ways do not cancel
    assert found["drift_over_real"] == pytest.approx(85.0 - 1.0)
    assert row(real, real, None)["metrics"]["sharpness"]["drift_over_real"] == 0.0


def test_signed_flow_cancels_within_a_video_only() -> None:
    swinging, steady = np.where(np.arange(FRAMES) % 2, 1.0, -1.0), np.full(FRAMES, -1.0)
    found = row(with_course(swinging, steady), None, None)["metrics"]
    assert found["flow_signed"]["mean"] == pytest.approx(0.5)
    assert found["flow"]["mean"] == pytest.approx(-0.5)


def test_frames_without_a_value_are_left_out_and_a_part_without_any_has_none() -> None:
    early = np.where(np.arange(FRAMES) < 12, 1.0, np.nan)
    found = row(with_course(early), None, None)
    assert found["metrics"]["direction"] == {"mean": 1.0, "first": 1.0, "last": None, "drift": None}
    assert found["course"]["direction"]["value"][-1] is None
    json.dumps(found, allow_nan=False)


def test_features_that_move_away_from_real_clips_are_a_drift() -> None:
    compared, same = with_course(np.ones(FRAMES)), with_course(np.ones(FRAMES))
    moved = [features + np.linspace(0, 9, len(features))[:, None] for features in same.features]
    away = Measured(frames=FRAMES, series=same.series, features=moved, begins=[])
    found = row(away, same, compared)["metrics"]["frechet"]
    assert found["last"] > 100 * max(found["first"], 0.1)
    assert found["drift_over_real"] == pytest.approx(found["drift"])


@pytest.mark.slow
def test_the_command_makes_measures_and_writes_and_a_second_time_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny(tmp_path / "tiny")
    monkeypatch.setattr(command, "kept_classifier", lambda folder: Classifier())
    monkeypatch.setattr(command, "HELD_OUT_CLIPS", 4)
    arguments = ["--checkpoint", f"noise={tmp_path / 'tiny'}", "--prompts", "1", "--in-process"]
    arguments += ["--variants", "1-1-1", "1-1-1+no-anchor"]
    arguments += ["--folder", str(tmp_path / "videos"), "--output", str(tmp_path / "out" / "bench.json")]
    command.main(arguments)
    report: dict[str, Any] = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert list(report["rows"]) == ["real@81", "noise 1-1-1@81", "noise 1-1-1+no-anchor@81"]
    real, noise, loose = report["rows"].values()
    assert real["captions"]["colour"] == real["captions"]["direction"] == real["captions"]["present"] == 1.0
    assert noise["captions"]["direction"] == 0.0
    assert noise["metrics"]["palette"]["mean"] > 5 * real["metrics"]["palette"]["mean"]
    assert noise["course"]["sharpness"] != loose["course"]["sharpness"]  # the anchor changes later chunks
    assert (noise["speed"]["fps"] > 0, real["speed"]) == (True, None)
    assert report["conditions"]["opencv"]
    text = (tmp_path / "out" / "bench.md").read_text()
    assert text == tables(report)
    assert "### 81 frames" in text
    assert "| metric | real (1) | noise 1-1-1 (1) | noise 1-1-1+no-anchor (1) |" in text
    assert (tmp_path / "out" / "bench.png").read_bytes().startswith(b"\x89PNG")
    names = [file.name for file in (tmp_path / "videos").rglob("*.mp4")]
    assert names == ["1_81_ori81.mp4"] * 4

    def not_again(*_: Any) -> Any:
        raise AssertionError("a video is made again")

    monkeypatch.setattr("benchmarks.bench.make.write_video", not_again)
    monkeypatch.setattr(command, "rows_of", lambda *_: report["rows"])
    command.main(arguments)


def test_a_way_that_no_checkpoint_takes_is_named(tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny")
    with pytest.raises(ValueError, match="variants: '50' is not allowed; allowed: what one of distilled takes"):
        command.main(["--checkpoint", str(tmp_path / "tiny"), "--in-process", "--variants", "50"])
    with pytest.raises(ValueError, match="names that differ"):
        command.main(["--checkpoint", str(tmp_path / "tiny"), str(tmp_path / "tiny"), "--in-process"])
