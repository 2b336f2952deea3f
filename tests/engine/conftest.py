"""The VAE's path on a GPU, without one."""

import pytest
import torch
import torch.nn.functional as F

from engine.vae_memory import Launched
from helios_engine.vae import layers as vae_layers
from helios_kernels import channel_norm


@pytest.fixture
def gpu_path(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Meta tensors take the VAE's path on a GPU. The last strides of its attention's queries, keys and values."""
    strides = list[int]()

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        strides.extend(part.stride(-1) for part in (q, k, v))
        return torch.empty(q.shape, dtype=q.dtype, device=q.device)

    monkeypatch.setattr(channel_norm, "_channel_norm_kernel", Launched())
    for module in (vae_layers, channel_norm):
        monkeypatch.setattr(module, "use_triton", lambda *_: True)
    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    return strides
