"""The denoiser as the configuration describes it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from helios_engine.loading.tiny import write_tiny
from helios_engine.request import LoraWeight
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState
from helios_engine.variants import make_request
from helios_services.config import ConfigError, DenoiserConfig, ModelConfig, ServiceConfig
from helios_services.deployments.replicas.load_denoiser import load_denoiser

CPU = torch.device("cpu")


def config(checkpoint: Path, denoiser: DenoiserConfig | None = None, **model: Any) -> ServiceConfig:
    settings = ModelConfig(checkpoint=str(checkpoint), dtype="float32", **model)
    return ServiceConfig(model=settings, denoiser=denoiser or DenoiserConfig())


def chunk(denoiser: Denoiser, **fields: Any) -> torch.Tensor:
    size = {"height": 64, "width": 64, "num_frames": 33, "pyramid_steps": (1, 1, 1)}
    state = DenoiseState.initial(make_request("distilled", prompt="a lake", **size, **fields))
    return denoiser.denoise_chunk(state, torch.ones(1, 512, 32))[0]


def test_offloading_and_adapters(checkpoint: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = {"lora_A": (4, 48), "lora_B": (48, 4)}
    tensors = {
        f"transformer.blocks.0.attn1.to_q.{name}.weight": torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }
    style = tmp_path / "style.safetensors"
    save_file(tensors, style)
    plain = chunk(load_denoiser(config(checkpoint), CPU))
    offloaded = DenoiserConfig(offload_budget_gb=0.0002)  # two of the tiny model's blocks are larger
    served = load_denoiser(config(checkpoint, offloaded, loras={"style": str(style)}), CPU)
    assert torch.equal(chunk(served), plain)
    styled = chunk(served, loras=(LoraWeight(name="style", scale=2.0),))
    merged = chunk(load_denoiser(config(checkpoint, merged_loras={str(style): 2.0}), CPU))
    assert not torch.allclose(styled, plain, atol=1e-3)
    assert torch.allclose(styled, merged, atol=1e-4)


def test_a_checkpoint_of_another_variant_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path, variant="mid")
    with pytest.raises(ConfigError, match=r"model.variant: 'distilled' is not allowed; allowed: 'mid'"):
        load_denoiser(config(tmp_path), CPU)
    assert load_denoiser(config(tmp_path, variant="mid"), CPU).zero_star
