"""The published layout, as the reference implementation reads and writes it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, HeliosPipeline, HeliosPyramidPipeline
from safetensors.torch import load_file, save_file

from helios_engine.configs import VAEConfig
from helios_engine.errors import CheckpointError
from helios_engine.loading.check import check_checkpoint
from helios_engine.loading.shapes import vae_shapes
from helios_engine.loading.tiny import LATENTS_MEAN, LATENTS_STD, write_tiny
from helios_engine.loading.vae import load_decoder

VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    "options", [{}, {"base_dim": 8, "num_res_blocks": 1}, {"base_dim": 12, "dim_mult": [1, 3, 2, 2]}]
)
def test_vae_tensors_are_those_of_the_reference(options: dict[str, Any]) -> None:
    with torch.device("meta"):
        reference = AutoencoderKLWan(**options)
    assert tuple(reference.config.latents_mean) == LATENTS_MEAN
    assert tuple(reference.config.latents_std) == LATENTS_STD
    tuples: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    config = VAEConfig(latents_mean=LATENTS_MEAN, latents_std=LATENTS_STD, **tuples)
    assert vae_shapes(config) == {name: tensor.shape for name, tensor in reference.state_dict().items()}


@pytest.mark.parametrize(
    ("variant", "pipeline"),
    [("base", HeliosPipeline), ("mid", HeliosPyramidPipeline), ("distilled", HeliosPyramidPipeline)],
)
def test_the_reference_loads_tiny_checkpoints_and_what_it_saves_is_sound(
    variant: Any, pipeline: Any, tmp_path: Path
) -> None:
    write_tiny(tmp_path / "ours", variant=variant, seed=1)
    reference = pipeline.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    written = {
        name: tensor
        for file in (tmp_path / "ours/transformer").glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }
    loaded = reference.transformer.state_dict()
    assert loaded.keys() == written.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in written.items())
    reference.save_pretrained(tmp_path / "theirs")
    ours, theirs = (check_checkpoint(tmp_path / name) for name in ("ours", "theirs"))
    assert theirs.variant == variant
    assert theirs.components == ours.components


def test_a_folder_with_half_an_encoder_decodes_but_is_not_sound(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    weights = load_file(tmp_path / VAE)
    del weights["encoder.conv_in.bias"]
    weights["quant_conv.bias"] = torch.ones(3)
    save_file(weights, tmp_path / VAE)
    load_decoder(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        check_checkpoint(tmp_path)
    first, second = str(caught.value).splitlines()
    assert "vae: tensor encoder.conv_in.bias: is missing" in first
    assert "tensor quant_conv.bias: has shape [3], expected [32]" in second
