"""The denoiser with what surrounds it: adapters per request, offloading, and memory over a long video."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from helios_engine.checkpoint import weights
from helios_engine.errors import InvalidField
from helios_engine.loading import denoiser as loading
from helios_engine.loading.denoiser import load_denoiser
from helios_engine.loading.tiny import write_tiny
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.request import GenerationRequest, LoraWeight
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState
from helios_engine.variants import resolve

PROMPT = torch.randn(1, 512, 32, generator=torch.Generator().manual_seed(1))
LAYERS = ("blocks.0.attn1.to_q", "blocks.1.attn2.to_k", "blocks.1.ffn.net.2", "patch_short")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoint")
    write_tiny(root)
    return root


@pytest.fixture(scope="module")
def lora(checkpoint: Path) -> Path:
    """An adapter file for some linear layers and a patch embedding."""
    model = load_denoiser(checkpoint, dtype=torch.float32).transformer
    generator = torch.Generator().manual_seed(2)
    tensors = {}
    for layer in LAYERS[:3]:
        out, features = model.get_parameter(f"{layer}.weight").shape
        tensors[f"transformer.{layer}.lora_A.weight"] = torch.randn(4, features, generator=generator)
        tensors[f"transformer.{layer}.lora_B.weight"] = torch.randn(out, 4, generator=generator)
    save_file(tensors, checkpoint / "style.safetensors")
    return checkpoint / "style.safetensors"


def load(checkpoint: Path, **options: Any) -> Denoiser:
    return load_denoiser(checkpoint, dtype=torch.float32, **options)


def chunk(denoiser: Denoiser, **fields: Any) -> torch.Tensor:
    request = GenerationRequest(prompt="a lake", height=64, width=64, num_frames=33, pyramid_steps=(1, 1, 1), **fields)
    return denoiser.denoise_chunk(DenoiseState.initial(resolve(request, "distilled")), PROMPT)[0]


def test_adapters_are_chosen_per_request_and_leave_nothing_behind(checkpoint: Path, lora: Path) -> None:
    plain = chunk(load(checkpoint))
    denoiser = load(checkpoint, loras={"style": lora})
    assert torch.equal(chunk(denoiser), plain)
    styled = chunk(denoiser, loras=(LoraWeight(name="style", scale=0.5),))
    assert not torch.allclose(styled, plain, atol=1e-3)
    merged = chunk(load(checkpoint, merged_loras=[(lora, 0.5)]))
    assert torch.allclose(styled, merged, atol=1e-4)
    assert torch.equal(chunk(denoiser), plain)  # the cached keys and values of the same prompt are the plain model's
    assert torch.equal(chunk(denoiser, loras=(LoraWeight(name="style", scale=0.5),)), styled)


def test_unknown_adapters_are_refused(checkpoint: Path, lora: Path) -> None:
    with pytest.raises(InvalidField, match=r"loras\[0\].name: 'other' is not allowed; allowed: .*: style"):
        chunk(load(checkpoint, loras={"style": lora}), loras=(LoraWeight(name="other"),))


def test_offloading_changes_no_bit_also_with_adapters(checkpoint: Path, lora: Path) -> None:
    transformer = load(checkpoint).transformer
    assert isinstance(transformer, HeliosTransformer)
    blocks = transformer.blocks
    largest = max(sum(p.numel() * 4 for p in block.parameters()) for block in blocks)
    options: dict[str, Any] = {"loras": {"style": lora}}
    offloaded = load(checkpoint, offload_budget_bytes=int(largest * 1.1), **options)
    for fields in ({}, {"loras": (LoraWeight(name="style"),)}):
        assert torch.equal(chunk(offloaded, **fields), chunk(load(checkpoint, **options), **fields))
    with pytest.raises(ValueError, match="budget_bytes: 10 is not allowed; allowed: at least"):
        load(checkpoint, offload_budget_bytes=10)


def test_a_gpu_gets_back_what_loading_took_beside_the_weights(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device "cuda" is the CPU here: weights stay there, and the cache is the log's."""
    done = list[str]()
    load_weights, join = weights.load_weights, HeliosTransformer.join_projections

    def on_cpu(*args: Any, **options: Any) -> dict[str, torch.Tensor]:
        return load_weights(*args, **{**options, "device": "cpu"})

    def joined(transformer: HeliosTransformer) -> None:
        join(transformer)
        done.append("joined")

    monkeypatch.setattr(loading, "load_weights", on_cpu)
    monkeypatch.setattr(HeliosTransformer, "join_projections", joined)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("emptied"))
    load(checkpoint)
    assert done == []
    load(checkpoint, device="cuda")
    assert done == ["joined", "emptied"]


def tensors_alive() -> tuple[int, int]:
    """Tensors, and bytes of their storages, that this process holds."""
    gc.collect()
    # exact types: what a compilation elsewhere has left behind are tensors without memory
    found = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    storages = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in found}
    return len(found), sum(storages.values())


def test_memory_and_state_stay_flat_over_hundreds_of_chunks(checkpoint: Path) -> None:
    denoiser = load(checkpoint)
    request = GenerationRequest(prompt="a lake", height=64, width=64, num_frames=33 * 300, pyramid_steps=(1, 1, 1))
    state = DenoiseState.initial(resolve(request, "distilled"))
    alive, sizes = [], set()
    while state.chunk_index < request.num_chunks:
        embeds = PROMPT * (1.0 + state.chunk_index % 40)  # changing prompts: the cache of keys and values is bounded
        _, state = denoiser.denoise_chunk(state, embeds)
        if state.chunk_index in (50, 300):
            alive.append(tensors_alive())
            sizes.add(sum(part.numel() for part in (state.history, state.anchor, state.rng_state)))
    (tensors, size), (tensors_later, size_later) = alive
    assert tensors_later <= tensors  # fewer: what other tests of this process have left goes at its own time
    assert size_later <= size
    assert len(sizes) == 1
