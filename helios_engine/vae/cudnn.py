"""Which versions of cuDNN decode in 16 bits."""

import torch

FULL_CUDNN = 91500
"""cuDNN 9.15, as torch says it. Before it, 16-bit 3-D convolutions fall back to a kernel that is ten times slower and
takes far more memory (pytorch issue 166643)."""


def check_cudnn(device: torch.device, dtype: torch.dtype) -> None:
    """Raises ValueError for a 16-bit VAE on a GPU whose cuDNN has no kernels for it."""
    version = torch.backends.cudnn.version() or 0
    if device.type == "cuda" and dtype.itemsize == 2 and version < FULL_CUDNN:
        raise ValueError(
            f"vae_dtype: {dtype} is not allowed with cuDNN {version}; allowed: torch.float32, or cuDNN from "
            f"{FULL_CUDNN} (9.15) on"
        )
