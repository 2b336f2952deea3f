"""Decoded chunks against `AutoencoderKLWan`, which decodes one latent frame at a time."""

from typing import Any

import numpy as np
import pytest
import torch

from helios_engine.vae.layers import CausalConv3d
from parity.reference import relative_error, vaes


def both(height: int, width: int, frames: int = 9) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Pixels in [-1, 1] and uint8 frames: ours, reference, ours, reference."""
    reference, ours, _ = vaes()
    latents = torch.randn(1, 16, frames, height // 8, width // 8, generator=torch.Generator().manual_seed(3))
    mean, std = (torch.tensor(reference.config[k]).view(1, 16, 1, 1, 1) for k in ("latents_mean", "latents_std"))
    with torch.inference_mode():
        expected = reference.decode(latents / (1.0 / std) + mean, return_dict=False)[0]
        actual = ours.model(latents).clamp(-1.0, 1.0)  # the reference clamps pixels, ours frames
    expected_frames = ((expected[0] / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 3, 0).numpy()
    return actual, expected, ours.decode(latents), expected_frames


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 128)])
def test_chunk_matches_reference(height: int, width: int) -> None:
    actual, expected, frames, expected_frames = both(height, width)
    assert expected.std() > 0.05  # the comparison is of a picture, not of a constant
    assert relative_error(actual, expected) < 1e-4
    assert frames.shape == (33, height, width, 3)
    assert np.abs(frames.astype(int) - expected_frames.astype(int)).max() <= 1


def test_single_latent_frame_is_one_picture() -> None:
    actual, expected, *_ = both(64, 64, frames=1)
    assert actual.shape[2] == 1
    assert relative_error(actual, expected) < 1e-4


def test_comparison_catches_non_causal_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    def centred(self: Any, x: torch.Tensor, front: int, carry: Any) -> torch.Tensor:
        assert front == 0
        return torch.nn.functional.conv3d(x, self.weight, self.bias, padding=[self.past // 2, *self.padding[1:]])

    monkeypatch.setattr(CausalConv3d, "convolve", centred)
    actual, expected, *_ = both(64, 64)
    assert relative_error(actual, expected) > 1e-4
