"""The VAE in temporal slices: the same values as of the whole chunk, in less memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.peers import random_weights
from engine.vae_memory import Watched
from helios_engine.configs import VAEConfig
from helios_engine.vae import slices as vae_slices
from helios_engine.vae.decoder import Upsampler, VAEDecoder, WanDecoder
from helios_engine.vae.encoder import Downsampler, VAEEncoder, WanEncoder
from helios_engine.vae.layers import CausalConv3d
from helios_engine.vae.slices import ACTIVATION_BUDGET_BYTES, LARGEST_TENSOR, Carry, even_parts, slice_bytes

CONFIG = VAEConfig(base_dim=8, num_res_blocks=1, latents_mean=(0.1,) * 16, latents_std=(1.5,) * 16)
PUBLISHED = VAEConfig(latents_mean=(0.0,) * 16, latents_std=(1.0,) * 16)
ODD_SIZES = [(3, 5), (6, 2)]
"""Heights and widths of the latents."""


def decoder() -> WanDecoder:
    with torch.device("meta"):
        model = WanDecoder(CONFIG)
    model.load_state_dict(random_weights(model, torch.device("cpu"), lambda _: torch.float32), assign=True)
    return model.eval().requires_grad_(False)


def encoder() -> WanEncoder:
    with torch.device("meta"):
        model = WanEncoder(CONFIG)
    model.load_state_dict(random_weights(model, torch.device("cpu"), lambda _: torch.float32), assign=True)
    return model.eval().requires_grad_(False)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def decoded_apart(parts: list[int], size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A chunk in such slices of latent frames, and as a whole."""
    model, latents, carry = decoder(), random(1, 16, sum(parts), *size), Carry()
    with torch.inference_mode():
        slices = [model(part, carry) for part in latents.split(parts, dim=2)]
        return torch.cat(slices, dim=2), model(latents)


def encoded_apart(parts: list[int], size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and deviations of the same."""
    model, carry = encoder(), Carry()
    pixels = random(1, 3, 4 * sum(parts) - 3, 8 * size[0], 8 * size[1])
    frames = [4 * parts[0] - 3, *(4 * part for part in parts[1:])]
    with torch.inference_mode():
        slices = [torch.stack(model(part, carry)) for part in pixels.split(frames, dim=2)]
        return torch.cat(slices, dim=3), torch.stack(model(pixels))


def error(pair: tuple[torch.Tensor, torch.Tensor]) -> float:
    apart, whole = pair
    assert apart.shape == whole.shape
    return float((apart - whole).norm() / whole.norm())


@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("parts", [[1] * 9, [5, 4], [1, 8], [3, 3, 3], [7, 1, 1]])
@pytest.mark.parametrize("work", [decoded_apart, encoded_apart])
@pytest.mark.parametrize("plain", [False, True])
def test_slices_are_the_whole_chunk(
    work: Callable[..., Any], parts: list[int], size: tuple[int, int], plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """plain: by torch's own convolutions, over padded inputs, as on other devices."""
    if plain:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    apart, whole = work(parts, size)
    assert whole.std() > 0.01
    assert error((apart, whole)) < 1e-6


def forgetful_convolution(self: Any, x: torch.Tensor, front: int, carry: Carry | None) -> torch.Tensor:
    return convolve(self, x, front, None)


def forgetful_doubling(self: Any, x: torch.Tensor, carry: Carry | None = None) -> torch.Tensor:
    if carry is not None:
        carry.pop(self, None)
    return upsample(self, x, carry)


def forgetful_merging(self: Any, x: torch.Tensor, carry: Carry | None = None) -> torch.Tensor:
    if carry is not None and self in carry:
        carry[self].zero_()
    return downsample(self, x, carry)


convolve, upsample, downsample = CausalConv3d.convolve, Upsampler.forward, Downsampler.forward


def test_forgotten_frames_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    for work in (decoded_apart, encoded_apart):
        with monkeypatch.context() as patch:
            patch.setattr(CausalConv3d, "convolve", forgetful_convolution)
            assert error(work([5, 4], (3, 5))) > 1e-3
    with monkeypatch.context() as patch:
        patch.setattr(Upsampler, "forward", forgetful_doubling)
        apart, whole = decoded_apart([5, 4], (3, 5))
        assert apart.shape != whole.shape  # the second slice's first frame stayed one
    with monkeypatch.context() as patch:
        patch.setattr(Downsampler, "forward", forgetful_merging)
        assert error(encoded_apart([5, 4], (3, 5))) > 1e-3


def frames_and_peak(latents: torch.Tensor, budget: int | None) -> tuple[NDArray[np.uint8], int]:
    one = VAEDecoder(decoder(), activation_budget_bytes=budget)
    one.decode(latents)  # constants are made once
    with Watched(latents, *one.model.parameters()) as seen:
        return one.decode(latents), seen.peak


def test_memory_falls_with_the_budget_and_stays_within_it() -> None:
    latents = random(1, 16, 9, 8, 8)
    layers = list(decoder().footprints())
    budgets = [
        *(slice_bytes(layers, count, 64, 4, whole=count == 9) for count in (9, 4, 1)),
        1,  # the least that there is
    ]
    whole, _ = frames_and_peak(latents, None)
    peaks = list[int]()
    for budget in budgets:
        frames, peak = frames_and_peak(latents, budget)
        assert np.abs(frames.astype(int) - whole).max() <= 1  # sums in another order
        assert budget == 1 or peak <= budget + whole.nbytes  # the frames themselves are no activations
        peaks.append(peak)
    assert peaks[0] > 1.3 * peaks[1] > 2 * peaks[2]
    assert peaks[2] == peaks[3]


def test_memory_of_an_encoded_clip_falls_with_the_budget() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (33, 64, 64, 3), np.uint8)
    peaks, means = [], []
    for budget in (None, 1):
        one = VAEEncoder(encoder(), activation_budget_bytes=budget)
        with Watched(*one.model.parameters()) as seen:
            condition: Any = one.condition_on_video(clip[0], clip)
        peaks.append(seen.peak)
        means.append(condition.chunks[0].mean)
    torch.testing.assert_close(*means)
    assert peaks[0] > 2 * peaks[1]


@pytest.mark.parametrize("parts", [[9], [5, 4], [3, 3, 3], [1] * 9])
@pytest.mark.parametrize("height", [2, 6])
def test_the_estimate_is_what_the_gpu_path_holds(gpu_path: list[int], parts: list[int], height: int) -> None:
    with torch.device("meta"):
        models: list[Any] = [WanDecoder(PUBLISHED), WanEncoder(PUBLISHED)]
        latents, pixels = torch.empty(1, 16, 9, height, 10), torch.empty(1, 3, 33, 8 * height, 80)
    for model, video in zip(models, (latents, pixels), strict=True):
        frames = parts if video is latents else [4 * parts[0] - 3, *(4 * part for part in parts[1:])]
        carry = None if len(parts) == 1 else Carry()
        with torch.inference_mode(), Watched(video, *model.parameters()) as seen:
            for part in video.split(frames, dim=2):
                model(part, carry)
        layers, whole = list(model.footprints()), carry is None
        estimate = slice_bytes(layers, max(parts), height * 10, 4, whole=whole)
        assert 0.75 * estimate < seen.peak <= 1.01 * estimate
        assert seen.largest <= max(layer.largest * max(parts) + layer.slice for layer in layers) * height * 10


def slices_of(size: tuple[int, int], budget: int | None, dtype: torch.dtype = torch.float32) -> list[int]:
    with torch.device("meta"):
        one = VAEDecoder(WanDecoder(PUBLISHED).to(dtype), activation_budget_bytes=budget)
    return even_parts(9, one.longest_slice(9, size[0] // 8, size[1] // 8))


def test_slices_of_the_published_model() -> None:
    assert slices_of((384, 640), ACTIVATION_BUDGET_BYTES) == [9]
    assert slices_of((480, 832), ACTIVATION_BUDGET_BYTES) == [5, 4]
    assert slices_of((768, 1280), ACTIVATION_BUDGET_BYTES) == [1] * 9
    assert slices_of((768, 1280), ACTIVATION_BUDGET_BYTES, torch.bfloat16) == [2, 2, 2, 2, 1]
    with torch.device("meta"):
        layers = list(WanDecoder(PUBLISHED).footprints())
    assert slice_bytes(layers, 1, 96 * 160, 4, whole=False) <= ACTIVATION_BUDGET_BYTES
    assert 50e9 < slice_bytes(layers, 9, 96 * 160, 4, whole=True) < 60e9


@pytest.mark.parametrize("size", [(384, 640), (480, 832), (768, 1280)])
def test_no_tensor_needs_more_than_32_bits(gpu_path: list[int], size: tuple[int, int]) -> None:
    with torch.device("meta"):
        model = WanDecoder(PUBLISHED)
        latents = torch.empty(1, 16, 9, size[0] // 8, size[1] // 8)
    parts, carry = slices_of(size, None), Carry()
    with torch.inference_mode(), Watched(latents, *model.parameters()) as seen:
        for part in latents.split(parts, dim=2):
            model(part, carry)
    assert 0.3 * LARGEST_TENSOR < seen.largest <= LARGEST_TENSOR


def test_parts_are_even(monkeypatch: pytest.MonkeyPatch) -> None:
    assert even_parts(9, 8) == [5, 4]
    assert even_parts(9, 4) == [3, 3, 3]
    assert even_parts(1, 9) == [1]
    monkeypatch.setattr(vae_slices, "LARGEST_TENSOR", 1)
    assert slices_of((384, 640), None) == [1] * 9
