"""GELU as the end of the product before it: where that is done, and that it is the same function."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.test_acceleration import CONFIG
from helios_engine.accelerate.fp8 import Float8Linear
from helios_engine.model import block
from helios_engine.model.block import FeedForward, has_gelu_product
from helios_kernels import backend

BETWEEN_GELUS = 5e-4
"""What the tanh approximation, which GPUs compute here, differs by from what torch's product ends in on a CPU."""


@torch.inference_mode()
def test_only_plain_bfloat16_layers_on_a_gpu_end_in_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(backend.SWITCH, raising=False)
    monkeypatch.setattr(backend, "triton", object())
    layer = nn.Linear(4, 6)

    def on(device: str, dtype: torch.dtype) -> Any:
        return SimpleNamespace(is_cuda=device == "cuda", dtype=dtype)

    x = on("cuda", torch.bfloat16)
    assert has_gelu_product(layer, x)
    assert not has_gelu_product(layer, on("cpu", torch.bfloat16))
    assert not has_gelu_product(layer, on("cuda", torch.float32))
    assert not has_gelu_product(Float8Linear(layer.weight, layer.bias), x)
    adapter = layer.register_forward_hook(lambda *_: None)
    assert not has_gelu_product(layer, x)
    adapter.remove()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not has_gelu_product(layer, x)


def test_the_product_that_ends_in_gelu_is_the_layer_and_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layers, x = FeedForward(CONFIG), torch.randn(2, 5, CONFIG.inner_dim)
    down: Any = layers.net[2]
    nn.init.eye_(down.weight)  # lets the inner activations through
    nn.init.zeros_(down.bias)
    with torch.inference_mode():
        apart = layers(x)
        monkeypatch.setattr(block, "has_gelu_product", lambda *_: True)
        joined = layers(x)
    assert joined.shape == apart.shape
    difference = (joined - apart).abs().max()
    assert 0 < difference < BETWEEN_GELUS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_product_ends_in_the_approximation() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(256, 512).cuda().bfloat16(), torch.randn(2, 100, 256).cuda().bfloat16()
    inner = block.gelu_product(layer, x).double()
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double())
    error = {name: (inner - F.gelu(exact, approximate=name)).norm() for name in ("tanh", "none")}
    assert error["tanh"] < error["none"]
    assert error["tanh"] < 0.004 * inner.norm()  # rounded once
