"""What a plan counts with, held to what torch allocates: weights exactly, activations within a bound."""

from pathlib import Path

import pytest
import torch
from transformers import UMT5EncoderModel

from engine.vae_memory import Watched
from helios_engine.accelerate.memory import forward_bytes
from helios_engine.checkpoint import open_checkpoint
from helios_engine.configs import TransformerConfig
from helios_engine.loading.denoiser import load_denoiser
from helios_engine.loading.text import empty_model, load_text_encoder
from helios_engine.loading.vae import load_decoder, load_encoder
from helios_engine.model.transformer import HeliosTransformer, parameter_dtype
from helios_engine.offload import offload_blocks
from helios_engine.options import DtypeName
from helios_engine.planning.needs import Needs
from helios_engine.text.embeds import MAX_PROMPT_TOKENS
from support.full_size import full_size_needs

DTYPES: list[DtypeName] = ["bfloat16", "float32"]
GB = 1e9


def allocated(*modules: torch.nn.Module) -> int:
    """Bytes of the storages that parameters lie in, each counted once."""
    storages = {
        parameter.untyped_storage().data_ptr(): parameter.untyped_storage().nbytes()
        for module in modules
        for parameter in module.parameters()
    }
    return sum(storages.values())


@pytest.fixture
def needs(checkpoint: Path) -> Needs:
    """What the tiny checkpoint needs."""
    return Needs.of(open_checkpoint(checkpoint), height=128, width=192)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_are_those_that_loading_allocates(needs: Needs, checkpoint: Path, dtype: DtypeName) -> None:
    as_torch = getattr(torch, dtype)
    assert needs.transformer_weights(dtype) == allocated(load_denoiser(checkpoint, dtype=as_torch).transformer)
    assert needs.text_weights(dtype) == allocated(load_text_encoder(checkpoint, dtype=as_torch).model)
    vae = load_decoder(checkpoint, dtype=as_torch).model, load_encoder(checkpoint).model
    assert needs.vae_weights(dtype) == allocated(*vae)


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_are_those_that_offloading_allocates(needs: Needs, checkpoint: Path, dtype: DtypeName) -> None:
    transformer = load_denoiser(checkpoint, dtype=getattr(torch, dtype)).transformer
    assert isinstance(transformer, HeliosTransformer)
    outside = sum(value.nbytes for name, value in transformer.named_parameters() if not name.startswith("blocks."))
    assert needs.outside_blocks(dtype) == outside
    assert needs.block_bytes(dtype) == offload_blocks(transformer, "cpu", 10**9).block_bytes


def test_the_published_model_has_its_published_size() -> None:
    needs = full_size_needs()
    assert needs.parameters == 14_312_427_584
    assert needs.transformer_weights("bfloat16") / GB == pytest.approx(28.7, abs=0.05)
    assert needs.text_weights("bfloat16") / GB == pytest.approx(11.4, abs=0.05)
    assert needs.vae_whole("float32") / GB == pytest.approx(13.8, abs=0.05)
    assert needs.vae_least("float32") / GB == pytest.approx(4.0, abs=0.05)
    assert needs.prompts("bfloat16", 1) == 40 * 2 * 512 * 5120 * 2
    guided = full_size_needs(guided=True)
    assert guided.prompts("bfloat16", 1) == 2 * needs.prompts("bfloat16", 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(384, 640), (768, 1280)])
def test_a_step_allocates_at_most_what_is_counted_and_not_much_less(dtype: DtypeName, size: tuple[int, int]) -> None:
    config, as_torch = TransformerConfig(num_layers=2), getattr(torch, dtype)
    height, width = (side // 8 for side in size)
    with torch.device("meta"):
        model = HeliosTransformer(config).requires_grad_(False)
        for name, parameter in model.named_parameters():
            parameter.data = parameter.data.to(parameter_dtype(name, as_torch))
        latents, past, anchor = (torch.empty(1, 16, frames, height, width, dtype=as_torch) for frames in (9, 19, 1))
        embeds, timestep = torch.empty(1, MAX_PROMPT_TOKENS, config.text_dim, dtype=as_torch), torch.empty(2)
    with torch.inference_mode():
        history, text = model.encode_history(past, anchor), model.encode_text(embeds)
        kept = [part for each in text for part in (each.k_BLHK, each.v_BLHK)]
        with Watched(*model.parameters(), latents, timestep, history.tokens_BND, *kept) as watched:
            model(latents, timestep, history, text)
    counted = forward_bytes(config, as_torch.itemsize, *size, 1)
    assert watched.peak <= counted <= 1.35 * watched.peak


def test_a_prompt_allocates_at_most_what_is_counted(checkpoint: Path) -> None:
    """One layer of the published width stands for all: they take turns."""
    needs = full_size_needs()
    config = empty_model(open_checkpoint(checkpoint)).config
    for name, value in {"d_model": 4096, "d_ff": 10_240, "num_heads": 64, "d_kv": 64, "num_layers": 1}.items():
        setattr(config, name, value)
    with torch.device("meta"):
        model = UMT5EncoderModel(config).to(torch.bfloat16).eval()
        ids = torch.zeros(1, MAX_PROMPT_TOKENS, dtype=torch.long)
    with torch.inference_mode(), Watched(*model.parameters(), ids) as watched:
        model(ids)  # a mask adds no more than its own 1 MB: the position bias stands in its place
    assert watched.peak <= needs.text_forward("bfloat16") <= 4 * watched.peak


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: torch.cuda counts what is allocated")
def test_a_gpu_allocates_at_most_what_is_counted(checkpoint: Path, needs: Needs) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    denoiser = load_denoiser(checkpoint, device="cuda", dtype=torch.bfloat16)
    weights = torch.cuda.memory_allocated() - before
    assert needs.transformer_weights("bfloat16") <= weights <= 1.1 * needs.transformer_weights("bfloat16") + 2**20
    assert denoiser.device.type == "cuda"
