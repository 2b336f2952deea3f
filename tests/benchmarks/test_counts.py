"""The roofline's counts against those of torch, and against the model's published arithmetic."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.counts import Product, parts
from benchmarks.roofline import floor_s
from benchmarks.sizes import SIZES
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.vae.decoder import WanDecoder
from helios_engine.vae.encoder import WanEncoder

TERA = 1e12
PUBLISHED = {"dit stage 0": 61.2, "dit stage 1": 99.9, "dit stage 2": 254.9, "vae decode": 69, "vae encode": 41}
"""TFLOP at full size, without attention in the DiT's and with the prompt's keys and values made in every step."""
TEXT_KEYS_TFLOP = 40 * 2 * 2 * 512 * 5120 * 5120 / TERA


@pytest.mark.parametrize("name", ["tiny", "cpu", "gpu-full"])
@torch.no_grad()
def test_counts_are_those_of_torch(name: str) -> None:
    size = SIZES[name]
    height, width = size.height // 8, size.width // 8
    with torch.device("meta"):  # no memory, and the operators that torch counts
        model, decoder, encoder = HeliosTransformer(size.transformer), WanDecoder(size.vae), WanEncoder(size.vae)
        text = model.encode_text(torch.empty(1, 512, size.transformer.text_dim))
        history = model.encode_history(torch.empty(1, 16, 19, height, width), torch.empty(1, 16, 1, height, width))
        latents = [torch.empty(1, 16, 9, height // scale, width // scale) for scale in (4, 2, 1)]
        pixels = torch.empty(1, 3, 33, 8 * height, 8 * width)
    calls: dict[str, Callable[[], object]] = {
        f"dit stage {n}": partial(model, x, 1.0, history, text) for n, x in enumerate(latents)
    }
    calls |= {"vae decode": partial(decoder, latents[2]), "vae encode": partial(encoder, pixels)}
    counted = parts(size)
    for part, call in calls.items():
        with FlopCounterMode(display=False) as counter:
            call()
        assert sum(product.flops for product in counted[part]) == counter.get_total_flops(), part


@pytest.mark.parametrize(("part", "tflop"), PUBLISHED.items())
def test_full_size_is_as_published(part: str, tflop: float) -> None:
    is_dit = part.startswith("dit")
    linear = sum(product.flops for product in parts(SIZES["gpu-full"])[part] if not (is_dit and product.attention))
    assert linear / TERA + is_dit * TEXT_KEYS_TFLOP == pytest.approx(tflop, rel=0.01)


def test_floor_takes_the_larger_of_arithmetic_and_memory() -> None:
    products = [Product(flops=100, elements=1), Product(flops=1, elements=100)]
    assert floor_s(products, flops_per_s=10.0, bytes_per_s=20.0, itemsize=2) == pytest.approx(10.0 + 10.0)
