"""Sections, modes and corruption: what the model remembers in training, as distributions."""

import numpy as np
import pytest
import torch

from helios_training.errors import TrainingError
from helios_training.history import corrupt as spoil
from helios_training.history.corrupt import Past, corrupt
from helios_training.history.modes import ModeShares, draw_mode, kept_latents
from helios_training.history.sections import take_section


def video(sections: int = 4) -> torch.Tensor:
    """Latents that hold their own frame number, from 1 on: (S, 2, 9, 1, 1)."""
    return torch.arange(1.0, 9 * sections + 1).view(sections, 1, 9, 1, 1).repeat(1, 2, 1, 2, 2)


@pytest.mark.parametrize("index", range(4))
def test_a_sections_past_is_the_nineteen_latents_before_it(index: int) -> None:
    section = take_section(video(), index)
    first = 9 * index + 1
    assert section.target[0, :, 0, 0].tolist() == [first + n for n in range(9)]
    assert section.history[0, :, 0, 0].tolist() == [max(first - 19 + n, 0) for n in range(19)]
    assert section.anchor[0, :, 0, 0].tolist() == [1.0 if index else 0.0]


def test_a_section_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="index: 4 is not allowed; allowed: 0 to 3"):
        take_section(video(), 4)


def test_modes_have_their_shares() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_mode(rng, ModeShares(image=0.1, video=0.4)) for _ in range(20_000)]
    shares = {mode: drawn.count(mode) / len(drawn) for mode in ("text", "image", "video", "all")}
    assert shares == pytest.approx({"text": 0.4, "image": 0.1, "video": 0.4, "all": 0.1}, abs=0.012)


def test_shares_above_one_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"image, video: 0.3 and 0.4 are not allowed"):
        ModeShares(image=0.3, video=0.4)


def test_each_mode_keeps_its_latents() -> None:
    rng = np.random.default_rng(0)
    kept, anchored = kept_latents("text", rng)
    assert not kept.any()
    assert not anchored
    kept, anchored = kept_latents("image", rng)
    assert kept.tolist() == [False] * 18 + [True]
    assert anchored
    assert kept_latents("all", rng)[0].all()
    missing = [19 - int(kept_latents("video", rng)[0].sum()) for _ in range(3000)]
    assert {count: missing.count(count) / 3000 for count in (1, 10, 19)} == pytest.approx(
        dict.fromkeys((1, 10, 19), 1 / 3), abs=0.03
    )
    kept = next(kept for kept, _ in iter(lambda: kept_latents("video", rng), None) if kept.sum() == 9)
    assert kept.tolist() == [False] * 10 + [True] * 9  # the oldest are missing


def past(batch: int = 2, channels: int = 16, height: int = 8, width: int = 16) -> Past:
    generator = torch.Generator().manual_seed(1)
    history = torch.randn(batch, channels, 19, height, width, generator=generator)
    return Past(history=history, anchor=torch.randn(batch, channels, 1, height, width, generator=generator))


def test_one_batch_in_ten_is_clean_and_one_in_ten_of_the_others_blurred() -> None:
    x = past(1, 1, 48, 80)  # so large that even the least blur takes a row
    generator = torch.Generator().manual_seed(0)
    clean = blurred = 0
    draws = 2000
    for _ in range(draws):
        history = corrupt(x, generator).history
        clean += torch.equal(history, x.history)
        # blurring takes variance away from every frame, noise leaves some nearly as they were
        change = (history - x.history).square().mean(dim=(0, 1, 3, 4))
        blurred += bool(change.max() > 0) and bool(change.std() / change.mean() < 0.2)
    assert clean / draws == pytest.approx(0.1, abs=0.02)
    assert blurred / draws == pytest.approx(0.09, abs=0.02)


def test_noise_has_a_level_of_its_own_for_each_frame_up_to_a_third() -> None:
    x = torch.full((64, 4, 20, 8, 8), 10.0)
    generator = torch.Generator().manual_seed(0)
    noised = spoil.add_noise(x, generator)
    sigma = 1 - noised.mean(dim=(1, 3, 4)) / 10  # (1 - s) x + s e, e of zero mean
    assert float(sigma.min()) > -0.01
    assert float(sigma.max()) == pytest.approx(1 / 3, abs=0.02)
    assert float(sigma.mean()) == pytest.approx(1 / 6, abs=0.01)
    spread = noised.std(dim=(1, 3, 4))
    assert torch.allclose(spread, sigma.clamp_min(0), atol=0.06)
    assert abs(float(np.corrcoef(sigma[:, 0], sigma[:, 1])[0, 1])) < 0.4  # frames are independent, the anchor's too


def test_blur_keeps_means_and_takes_detail() -> None:
    x = past().history
    blurred = spoil.blur(x, torch.Generator().manual_seed(3))
    assert blurred.var() < 0.9 * x.var()
    smooth = torch.linspace(0, 1, 16).expand(1, 16, 19, 8, 16) + 1.0
    assert torch.allclose(spoil.blur(smooth, torch.Generator().manual_seed(3)), smooth, atol=0.03)


def test_saturation_moves_channels_about_their_mean_by_blocks() -> None:
    x = past(1).history
    generator = torch.Generator().manual_seed(0)
    factors = []
    for _ in range(500):
        shifted = spoil.shift_saturation(x, generator)
        assert torch.allclose(shifted.mean(dim=1), x.mean(dim=1), atol=1e-5)
        ratio = ((shifted - x.mean(dim=1, keepdim=True)) / (x - x.mean(dim=1, keepdim=True)))[0, 0, :, 0, 0]
        for block in ratio.split([1, 9, 2, 7]):
            assert torch.allclose(block, block[0].expand_as(block), atol=1e-3)
        factors += [float(block[0]) for block in ratio.split([1, 9, 2, 7])]
    assert min(factors) == pytest.approx(0.3, abs=0.02)
    assert max(factors) == pytest.approx(1.7, abs=0.02)
    assert np.mean([factor < 1 for factor in factors]) == pytest.approx(0.5, abs=0.05)


def test_saturation_is_for_stage_three_and_spares_the_anchor() -> None:
    x = past(1)
    generator = torch.Generator().manual_seed(0)
    shifted = sum(
        not torch.allclose(corrupt(x, generator, saturation=True).history.mean(dim=1), x.history.mean(dim=1))
        or not torch.equal(corrupt(x, generator, saturation=True).history, x.history)
        for _ in range(200)
    )
    assert shifted > 190
    spoilt = spoil.shift_saturation(x.history, generator)
    assert not torch.equal(spoilt, x.history)
    with pytest.raises(ValueError, match="20 frames; allowed: 19, no anchor"):
        spoil.shift_saturation(torch.cat([x.anchor, x.history], dim=2), generator)


@pytest.mark.parametrize("change", [spoil.add_noise, spoil.blur, spoil.shift_saturation])
def test_frames_that_are_not_there_stay_zero(change: object) -> None:
    x = past().history
    x[0, :, :10] = 0.0
    spoilt = change(x, torch.Generator().manual_seed(0))  # type: ignore[operator]
    assert torch.equal(spoilt[0, :, :10], x[0, :, :10])
    assert not torch.equal(spoilt[1], x[1])
