"""Which of torch's attention kernels is fastest for a size: measured, so that each peer runs with its best."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.sizes import Size
from benchmarks.timing import measure
from helios_engine.tokens import history_tokens, noisy_tokens

GPU_BACKENDS = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)

TORCHS_CHOICE = "torch's choice"


def fastest_backend(size: Size) -> str:
    """The name of the kernel that is fastest on the finest stage; on a CPU torch has one, and chooses it itself."""
    if size.device == "cpu":
        return TORCHS_CHOICE
    config = size.transformer
    length = history_tokens(size.height, size.width) + noisy_tokens(size.height, size.width)
    shape = (1, length, config.num_attention_heads, config.attention_head_dim)
    # heads behind tokens in memory, as diffusers hands them over
    q, k, v = (torch.randn(shape, device=size.device).to(size.dtype).transpose(1, 2) for _ in range(3))
    medians = {}
    for backend in GPU_BACKENDS:
        with sdpa_kernel(backend):
            try:
                timing = measure({"": lambda: F.scaled_dot_product_attention(q, k, v)}, device=size.device, runs=10)
            except RuntimeError:  # this GPU or torch does not have it
                continue
            medians[backend.name] = timing[""].median
    return min(medians, key=lambda name: medians[name], default=TORCHS_CHOICE)


@contextmanager
def with_backend(name: str) -> Iterator[None]:
    """Attention prefers that kernel. The others stay allowed: it may not take every shape, such as the VAE's."""
    preferred = getattr(SDPBackend, name, None)
    others = [*(backend for backend in GPU_BACKENDS if backend != preferred), SDPBackend.MATH]
    with nullcontext() if preferred is None else sdpa_kernel([preferred, *others], set_priority=True):
        yield
