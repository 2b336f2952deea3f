"""Image to video and video to video, from pixels, against the reference pipelines; continuation against itself."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from helios_engine.request import GenerationRequest
from helios_engine.sampling.conditioning import conditioned_state
from helios_engine.sampling.state import DenoiseState
from parity.reference import SHAPES, TOLERANCE, relative_error, vaes
from parity.sampling import our_steps, reference_steps, request_for, worst

SHAPE = SHAPES[0]
STEPS: dict[str, dict[str, Any]] = {
    "base": {"num_inference_steps": 2},
    "mid": {"pyramid_steps": (3, 1, 1)},
    "distilled": {"pyramid_steps": (1, 2, 1)},
}
FirstState = Callable[[GenerationRequest], DenoiseState]


def frames(count: int, seed: int = 5) -> NDArray[np.uint8]:
    """A moving random pattern, (count, H, W, 3)."""
    still = np.random.default_rng(seed).integers(0, 256, (SHAPE.height, SHAPE.width, 3), dtype=np.uint8)
    return np.stack([np.roll(still, number, axis=1) // (1 + number % 3) for number in range(count)])


def pixels(clip: NDArray[np.uint8]) -> torch.Tensor:
    """What the reference's preprocessing makes of frames of the right size: (T, 3, H, W) in [0, 1]."""
    return torch.tensor(clip).permute(0, 3, 1, 2) / 255


def from_image(request: GenerationRequest) -> DenoiseState:
    assert request.image is not None
    return conditioned_state(request, vaes()[2].condition_on_image(request.image))


def from_video(request: GenerationRequest) -> DenoiseState:
    assert request.video is not None
    return conditioned_state(request, vaes()[2].condition_on_video(request.video[0], request.video))


@pytest.mark.parametrize("variant", ["base", "mid", "distilled"])
def test_image_to_video(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    still = frames(1)[0]
    request = request_for(SHAPE, 3, variant, image=still, **STEPS[variant])
    reference = reference_steps(SHAPE, request, variant, {"image": pixels(still[None])})
    ours = our_steps(SHAPE, request, monkeypatch, variant, first_state=from_image, serialise=True)
    assert worst(ours, reference) < TOLERANCE
    assert worst(our_steps(SHAPE, request, monkeypatch, variant), reference) > 1e-2  # the image matters


# 1, 3 and 4 chunks: less, as much and more than the history holds
@pytest.mark.parametrize(("variant", "count"), [("base", 100), ("mid", 100), ("distilled", 33), ("distilled", 140)])
def test_video_to_video(variant: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = frames(count)
    request = request_for(SHAPE, 2, variant, video=clip, **STEPS[variant])
    reference = reference_steps(SHAPE, request, variant, {"video": pixels(clip)[None]})
    ours = our_steps(SHAPE, request, monkeypatch, variant, first_state=from_video, serialise=True)
    assert worst(ours, reference) < TOLERANCE


@pytest.mark.parametrize(
    "options",
    [
        {"condition_noise": False},
        {"image_noise_sigma": (0.3, 0.5), "video_noise_sigma": (0.0, 0.9)},
        {"skip_first_chunk": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("task", ["image", "video"])
def test_options_of_conditioned_tasks(task: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    clip = frames(70)
    media = clip[0] if task == "image" else clip
    first_state: FirstState = from_image if task == "image" else from_video
    given: dict[str, Any] = {task: media} | options
    request = request_for(SHAPE, 3, pyramid_steps=(1, 1, 1), **given)
    inputs = {"image": pixels(clip[:1])} if task == "image" else {"video": pixels(clip)[None]}
    ours = our_steps(SHAPE, request, monkeypatch, first_state=first_state)
    assert worst(ours, reference_steps(SHAPE, request, inputs=inputs)) < TOLERANCE


def test_comparison_catches_noise_drawn_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = frames(140)
    request = request_for(SHAPE, 1, pyramid_steps=(1, 1, 1), video=clip)
    reference = reference_steps(SHAPE, request, inputs={"video": pixels(clip)[None]})

    def forgets_skipped_chunks(request: GenerationRequest) -> DenoiseState:
        return conditioned_state(request, vaes()[2].condition_on_video(clip[0], clip[-99:]))

    ours = our_steps(SHAPE, request, monkeypatch, first_state=forgets_skipped_chunks)
    assert worst(ours, reference) > 1e-2


def test_clips_shorter_than_a_chunk_are_refused() -> None:
    with pytest.raises(ValueError, match="32 frames are not allowed; allowed: at least 33"):
        vaes()[2].condition_on_video(frames(1)[0], frames(32))


@pytest.mark.parametrize("count", [1, 33])
def test_encoder_matches_the_reference(count: int) -> None:
    reference, _, encoder = vaes()
    clip = frames(count)
    with torch.inference_mode():
        expected = reference.encode(pixels(clip).transpose(0, 1)[None] * 2 - 1).latent_dist
    mean, std = (torch.tensor(reference.config[k]).view(1, 16, 1, 1, 1) for k in ("latents_mean", "latents_std"))
    actual = encoder._encode(clip)
    assert relative_error(actual.mean, (expected.mean - mean) / std) < 1e-5
    assert relative_error(actual.std, expected.std / std) < 1e-5


@pytest.mark.parametrize("variant", ["base", "mid", "distilled"])
def test_a_continued_video_is_one_longer_video(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = request_for(SHAPE, 3, variant, **STEPS[variant])
    half = request_for(SHAPE, 1, variant, **STEPS[variant])
    states: list[DenoiseState] = []
    advanced = DenoiseState.advanced

    def noted(state: DenoiseState, *args: Any) -> DenoiseState:
        states.append(advanced(state, *args))
        return states[-1]

    monkeypatch.setattr(DenoiseState, "advanced", noted)
    first = our_steps(SHAPE, half, monkeypatch, variant)
    rest_of = request_for(SHAPE, 2, variant, **STEPS[variant])
    rest = our_steps(SHAPE, rest_of, monkeypatch, variant, first_state=states[0].continued)
    expected = our_steps(SHAPE, whole, monkeypatch, variant)
    assert all(torch.equal(a, b) for a, b in zip(first + rest, expected, strict=True))
    assert [state.chunks_made for state in states] == [1, 1, 2, 1, 2, 3]
    with pytest.raises(ValueError, match="height: 128 is not allowed; allowed: 64, that of the video to continue"):
        states[0].continued(request_for(SHAPE, 1, variant, height=128, **STEPS[variant]))
