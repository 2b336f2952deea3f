"""On a GPU the VAE is channels last from its input on: no convolution, norm or attention has to copy what it gets."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.vae_memory import Watched
from helios_engine.configs import VAEConfig
from helios_engine.vae.decoder import Upsampler, VAEDecoder, WanDecoder
from helios_engine.vae.encoder import VAEEncoder, WanEncoder
from helios_engine.vae.slices import Carry

CONFIG = VAEConfig(base_dim=8, num_res_blocks=1, latents_mean=(0.0,) * 16, latents_std=(1.0,) * 16)


def decode(dtype: torch.dtype, slices: bool) -> None:
    with torch.device("meta"):
        model, latents = WanDecoder(CONFIG).to(dtype), torch.empty(1, 16, 9, 6, 10)
    VAEDecoder(model)
    carry: Carry | None = {} if slices else None
    for part in latents.split(4 if slices else 9, dim=2):
        model(part, carry)


def encode(dtype: torch.dtype, slices: bool) -> None:
    with torch.device("meta"):
        model, pixels = WanEncoder(CONFIG).to(dtype), torch.empty(1, 3, 33, 48, 80, dtype=dtype)
    VAEEncoder(model)
    carry: Carry | None = {} if slices else None
    for part in pixels.split([13, 20] if slices else 33, dim=2):
        model(part, carry)


@pytest.mark.parametrize("slices", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("work", "into"), [(decode, 16), (encode, 3)])
def test_nothing_changes_its_layout(
    gpu_path: list[int], work: Callable[[torch.dtype, bool], None], into: int, dtype: torch.dtype, slices: bool
) -> None:
    with torch.inference_mode(), Watched() as seen:
        work(dtype, slices)
    assert len(seen.convolved) > 20
    assert not seen.elsewhere
    assert {shape[1] for shape in seen.copied} <= {into}  # the input itself
    assert gpu_path
    assert set(gpu_path) == {1}


def test_a_doubling_that_loses_the_layout_is_seen(gpu_path: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    doubled = Upsampler._double_time

    def interleaved(self: Any, time_conv: Any, x: torch.Tensor, carry: Carry | None) -> torch.Tensor:
        return doubled(self, time_conv, x, carry).contiguous()

    monkeypatch.setattr(Upsampler, "_double_time", interleaved)
    with torch.inference_mode(), Watched() as seen:
        decode(torch.float32, slices=False)
    assert seen.elsewhere


def test_float32_on_a_cpu_keeps_its_own_layout() -> None:
    with torch.device("meta"):
        model = WanDecoder(CONFIG)
    VAEDecoder(model)
    assert model.decoder.conv_in.weight.is_contiguous()
