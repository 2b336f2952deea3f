"""Naturalness: the distance is Fréchet's, and a spoiled set is farther from real clips than other real clips are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench import classifier as classifiers
from benchmarks.bench.classifier import WORDS, Training, accuracy, features_of, kept_classifier
from benchmarks.bench.frechet import frechet
from helios_training.world import training_scenes
from support.spoiled_clips import SCENE, clip

SHORT = Training(clips=160, steps=60, batch=16)


def test_the_distance_of_two_normal_distributions_is_the_formula_s() -> None:
    draw = np.random.default_rng(0).normal(size=(20_000, 2))
    assert frechet(draw, draw) == pytest.approx(0.0, abs=1e-9)
    assert frechet(draw, draw + np.array([3.0, 4.0])) == pytest.approx(25.0, rel=1e-6)
    assert frechet(draw, draw * np.array([2.0, 1.0])) == pytest.approx(1.0, rel=0.05)  # (2 - 1)²
    mixed = draw @ np.array([[1.0, 0.6], [0.0, 0.8]])
    assert frechet(draw, mixed) == pytest.approx(frechet(mixed, draw), rel=1e-6)
    with pytest.raises(ValueError, match="ours: 1 rows"):
        frechet(draw[:1], draw)


def test_a_classifier_is_trained_once_and_tells_real_clips_from_spoiled_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kept_classifier(tmp_path, SHORT)
    assert accuracy(first, training_scenes(), 60, seed=9)["place"] > 0.5
    assert set(accuracy(first, training_scenes(), 5, seed=9)) == set(WORDS)
    monkeypatch.setattr(classifiers, "train_classifier", None)
    again = kept_classifier(tmp_path, SHORT)

    def features(name: str, seed: int) -> np.ndarray:
        scenes = [replace(SCENE, place=place) for place in ("sky", "sea", "night")]
        clips = [clip(scene, seed, frames=24) for scene in scenes]
        if name == "noisy":
            clips = [
                np.random.default_rng(n).integers(256, size=one.shape).astype(np.uint8) for n, one in enumerate(clips)
            ]
        elif name == "inverted":
            clips = [255 - one for one in clips]
        return np.concatenate([features_of(again, one) for one in clips])

    compared = features("real", 20)
    assert np.array_equal(
        compared,
        np.concatenate(
            [features_of(first, clip(replace(SCENE, place=place), 20, 24)) for place in ("sky", "sea", "night")]
        ),
    )
    real = frechet(features("real", 21), compared)
    assert frechet(features("noisy", 21), compared) > 3 * real
    assert frechet(features("inverted", 21), compared) > 3 * real
