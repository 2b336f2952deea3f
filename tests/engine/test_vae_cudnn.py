"""A VAE in 16 bits: refused where cuDNN is slow at it, close to float32's frames where it runs."""

from pathlib import Path

import pytest
import torch

from helios_engine.loading.vae import load_decoder
from helios_engine.vae.cudnn import check_cudnn

GPU = torch.device("cuda")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("version", [None, 91499])
def test_an_old_cudnn_decodes_in_float32_only(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, version: int | None
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: version)
    with pytest.raises(ValueError, match=r"vae_dtype: torch\.\w+16 is not allowed with cuDNN .*9\.15"):
        check_cudnn(GPU, dtype)
    check_cudnn(GPU, torch.float32)
    check_cudnn(torch.device("cpu"), dtype)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91500)
    check_cudnn(GPU, dtype)


def test_float16_is_closer_to_float32_than_bfloat16(checkpoint: Path) -> None:
    latents = torch.randn(1, 16, 9, 4, 6, generator=torch.Generator().manual_seed(0))
    frames = {
        dtype: load_decoder(checkpoint, dtype=dtype).decode(latents).astype(int)
        for dtype in (torch.float32, torch.float16, torch.bfloat16)
    }
    apart = {dtype: abs(frames[dtype] - frames[torch.float32]).mean() for dtype in (torch.float16, torch.bfloat16)}
    assert 0 < apart[torch.float16] < apart[torch.bfloat16] / 2
