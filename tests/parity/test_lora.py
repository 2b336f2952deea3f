"""LoRA adapters, merged and applied, against diffusers' own loading of the same files (PEFT's for PEFT's format)."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HeliosPyramidPipeline, HeliosTransformer3DModel
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from helios_engine.lora import Adapter, AdapterSet, LowRank, load_adapter, merge
from helios_engine.model.transformer import HeliosTransformer, parameter_dtype
from parity.reference import (
    SHAPES,
    TOLERANCE,
    forward_inputs,
    our_forward,
    pipeline,
    reference_forward,
    relative_error,
    schedulers,
    transformers,
)

SHAPE = SHAPES[0]
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
LINEAR = [*ATTENTION, "ffn.net.0.proj", "ffn.net.2", "time_proj", "linear_1", "linear_2", "proj_out"]
PATCHES = ["patch_embedding", "patch_short", "patch_mid", "patch_long"]
CONFIGS: dict[str, dict[str, Any]] = {
    "attention": {"r": 4, "lora_alpha": 4, "target_modules": ATTENTION},
    "large_alpha": {"r": 2, "lora_alpha": 5, "target_modules": LINEAR},
    "every_layer": {"r": 6, "lora_alpha": 3, "target_modules": LINEAR + PATCHES},
    "rank_stabilised": {"r": 8, "lora_alpha": 4, "use_rslora": True, "target_modules": LINEAR},
    "patterns": {
        "r": 4,
        "lora_alpha": 6,
        "rank_pattern": {"to_k": 2, "^blocks.1.attn2.to_v": 7, r"ffn\.net\.\d.*": 3},
        "alpha_pattern": {"blocks.0.attn1.to_q": 1, "to_q": 9.5, "ffn.net.2": 2},
        "target_modules": LINEAR,
    },
    "biases": {"r": 4, "lora_alpha": 6, "lora_bias": True, "target_modules": LINEAR + PATCHES},
}
INPUTS = forward_inputs(SHAPE, 1, 317)

pytestmark = pytest.mark.filterwarnings(
    "ignore:The following .*_pattern keys did not match:RuntimeWarning",
    "ignore:While injecting the PEFT adapters:RuntimeWarning",
    "ignore:Already found a `peft_config` attribute:UserWarning",
    "ignore:Adapter .* have invalid shape:UserWarning",  # PEFT, of every lora_bias, which it writes right all the same
)


def randomize_adapter(model: torch.nn.Module, seed: int) -> None:
    """Gives A, B and biases random values, so large that the adapter changes the velocity a lot."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            width = parameter[0].numel() if parameter.dim() > 1 else 4.0
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.7 / width**0.5


def trained(config: Mapping[str, Any], seed: int = 7) -> HeliosTransformer3DModel:
    """The reference with a random adapter of that configuration."""
    reference, _ = transformers(SHAPE)
    reference.add_adapter(LoraConfig(init_lora_weights=False, **config), "trained")
    randomize_adapter(reference, seed)
    return reference


def weights(config: Mapping[str, Any], seed: int = 7) -> dict[str, torch.Tensor]:
    """A random adapter's tensors, by PEFT's keys without prefix."""
    return {
        key: value.detach()
        for key, value in get_peft_model_state_dict(trained(config, seed), adapter_name="trained").items()
    }


def write(folder: Path, config: Mapping[str, Any], *, metadata: bool = True, seed: int = 7) -> Path:
    """A file as diffusers' pipelines write it."""
    reference = trained(config, seed)
    HeliosPyramidPipeline.save_lora_weights(
        folder,
        transformer_lora_layers=get_peft_model_state_dict(reference, adapter_name="trained"),
        transformer_lora_adapter_metadata=reference.peft_config["trained"].to_dict() if metadata else None,
    )
    return folder


def loaded(folders: Mapping[str, Path]) -> tuple[Any, HeliosTransformer, dict[str, Adapter]]:
    """The reference pipeline with the adapters loaded, our transformer without them, and our adapters."""
    reference, ours = transformers(SHAPE)
    pipe = pipeline(reference, None, schedulers()[0])
    for name, folder in folders.items():
        pipe.load_lora_weights(str(folder), adapter_name=name)
    return pipe, ours, {name: load_adapter(folder, ours) for name, folder in folders.items()}


def merged(ours: HeliosTransformer, adapters: Mapping[str, Adapter], scales: Mapping[str, float]) -> torch.Tensor:
    merge(ours, [(adapters[name], scale) for name, scale in scales.items()])
    return our_forward(ours, INPUTS)


def applied(ours: HeliosTransformer, adapters: Mapping[str, Adapter], scales: Mapping[str, float]) -> torch.Tensor:
    with AdapterSet(ours, adapters).activate(scales):
        return our_forward(ours, INPUTS)


Mode = Callable[[HeliosTransformer, Mapping[str, Adapter], Mapping[str, float]], torch.Tensor]
modes = pytest.mark.parametrize("mode", [merged, applied])


def compare(mode: Mode, folders: Mapping[str, Path], scales: Mapping[str, float]) -> float:
    """Relative error with the adapters at these scales, which must change the velocity by a multiple of that."""
    pipe, ours, adapters = loaded(folders)
    pipe.set_adapters(list(scales), list(scales.values()))
    expected = reference_forward(pipe.transformer, INPUTS)
    assert relative_error(our_forward(ours, INPUTS), expected) > 100 * TOLERANCE
    return relative_error(mode(ours, adapters, scales), expected)


@modes
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_pipeline_file(tmp_path: Path, config: Mapping[str, Any], mode: Mode) -> None:
    assert compare(mode, {"one": write(tmp_path, config)}, {"one": 1.0}) < TOLERANCE


@modes
@pytest.mark.parametrize("config", ["large_alpha", "patterns"])
def test_without_metadata_alpha_is_the_rank(tmp_path: Path, config: str, mode: Mode) -> None:
    assert compare(mode, {"one": write(tmp_path, CONFIGS[config], metadata=False)}, {"one": 1.0}) < TOLERANCE


@modes
@pytest.mark.parametrize("scale", [-0.5, 0.3, 2.0])
def test_scale(tmp_path: Path, scale: float, mode: Mode) -> None:
    assert compare(mode, {"one": write(tmp_path, CONFIGS["every_layer"])}, {"one": scale}) < TOLERANCE


@modes
def test_two_adapters_at_once(tmp_path: Path, mode: Mode) -> None:
    folders = {
        "one": write(tmp_path / "one", CONFIGS["every_layer"], seed=1),
        "two": write(tmp_path / "two", CONFIGS["patterns"], seed=2),
    }
    assert compare(mode, folders, {"two": 0.8, "one": -0.4}) < TOLERANCE


@modes
def test_one_of_two_loaded(tmp_path: Path, mode: Mode) -> None:
    folders = {
        "one": write(tmp_path / "one", CONFIGS["every_layer"], seed=1),
        "two": write(tmp_path / "two", CONFIGS["patterns"], seed=2),
    }
    assert compare(mode, folders, {"two": 0.8}) < TOLERANCE


@modes
def test_file_of_save_lora_adapter(tmp_path: Path, mode: Mode) -> None:
    trained(CONFIGS["patterns"]).save_lora_adapter(tmp_path, adapter_name="trained")
    reference, ours = transformers(SHAPE)
    reference.load_lora_adapter(str(tmp_path), prefix=None, adapter_name="one", use_safetensors=True)
    actual = mode(ours, {"one": load_adapter(tmp_path, ours)}, {"one": 1.0})
    assert relative_error(actual, reference_forward(reference, INPUTS)) < TOLERANCE


@modes
@pytest.mark.parametrize("config", ["every_layer", "patterns", "rank_stabilised", "biases"])
def test_peft_folder(tmp_path: Path, config: str, mode: Mode) -> None:
    model = get_peft_model(transformers(SHAPE)[0], LoraConfig(init_lora_weights=False, **CONFIGS[config]))
    randomize_adapter(model, 7)
    model.save_pretrained(tmp_path)
    reference, ours = transformers(SHAPE)
    oracle = PeftModel.from_pretrained(reference, tmp_path)
    actual = mode(ours, {"one": load_adapter(tmp_path, ours)}, {"one": 1.0})
    assert relative_error(actual, reference_forward(oracle, INPUTS)) < TOLERANCE


WAN = [
    (r"attn1\.to_out\.0", "self_attn.o"),
    (r"attn1\.to_([qkv])", r"self_attn.\1"),
    (r"attn2\.to_out\.0", "cross_attn.o"),
    (r"attn2\.to_([qkv])", r"cross_attn.\1"),
    (r"ffn\.net\.0\.proj", "ffn.0"),
    (r"ffn\.net\.2", "ffn.2"),
    (r"^condition_embedder\.time_proj", "time_projection.1"),
    (r"^condition_embedder\.(text|time)_embedder\.linear_1", r"\1_embedding.0"),
    (r"^condition_embedder\.(text|time)_embedder\.linear_2", r"\1_embedding.2"),
    (r"^proj_out", "head.head"),
]


def wan(key: str) -> str:
    """The key with the layer's name in Wan's repository."""
    for pattern, replacement in WAN:
        key = re.sub(pattern, replacement, key)
    return key


def write_wan(file: Path, *, down: str, up: str, biases: bool) -> None:
    """Wan's names, with alphas on the blocks' layers, where diffusers reads them."""
    tensors = {}
    for key, value in weights(CONFIGS["biases" if biases else "large_alpha"] | {"target_modules": LINEAR}).items():
        name = "diffusion_model." + wan(key).replace("lora_A", down).replace("lora_B", up)
        tensors[name.replace(f".{up}.bias", ".diff_b")] = value.contiguous()
        if ".blocks." in name and down in name:
            tensors[name.replace(f".{down}.weight", ".alpha")] = torch.tensor(3.0)
    save_file(tensors, file)


@modes
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(("down", "up"), [("lora_A", "lora_B"), ("lora_down", "lora_up")])
def test_wan_names(tmp_path: Path, down: str, up: str, biases: bool, mode: Mode) -> None:
    write_wan(tmp_path / "pytorch_lora_weights.safetensors", down=down, up=up, biases=biases)
    assert compare(mode, {"one": tmp_path}, {"one": 0.9}) < TOLERANCE


@modes
def test_musubi_names(tmp_path: Path, mode: Mode) -> None:
    config = {"r": 4, "lora_alpha": 4, "target_modules": [*ATTENTION, "ffn.net.0.proj", "ffn.net.2"]}
    tensors = {}
    for key, value in weights(config).items():
        layer, matrix = wan(key).split(".lora_")
        layer = "lora_unet_" + layer.replace(".", "_")
        tensors[f"{layer}.lora_{'down' if matrix[0] == 'A' else 'up'}.weight"] = value.contiguous()
        tensors[f"{layer}.alpha"] = torch.tensor(1.5, dtype=torch.bfloat16)
    save_file(tensors, tmp_path / "pytorch_lora_weights.safetensors")
    assert compare(mode, {"one": tmp_path}, {"one": 1.0}) < TOLERANCE


@modes
def test_keys_of_older_diffusers(tmp_path: Path, mode: Mode) -> None:
    renamed = {
        "transformer." + key.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): value.contiguous()
        for key, value in weights(CONFIGS["large_alpha"]).items()
    }
    save_file(renamed, tmp_path / "pytorch_lora_weights.safetensors")
    assert compare(mode, {"one": tmp_path}, {"one": 1.0}) < TOLERANCE


def _another_alpha(layers: dict[str, LowRank]) -> None:
    name = "blocks.1.attn2.to_v"
    update = layers[name]
    layers[name] = LowRank(down=update.down, up=update.up, bias=update.bias, scaling=update.scaling * 1.25)


def _dropped(name: str) -> Callable[[dict[str, LowRank]], None]:
    def drop(layers: dict[str, LowRank]) -> None:
        del layers[name]

    return drop


@modes
@pytest.mark.parametrize(
    "break_ours",
    [_another_alpha, *map(_dropped, ["blocks.0.attn1.to_q", "blocks.1.attn2.to_k", "patch_long", "proj_out"])],
    ids=["alpha", "self_attention", "text_keys", "patch_embedding", "output"],
)
def test_comparison_catches(tmp_path: Path, break_ours: Callable[[dict[str, LowRank]], None], mode: Mode) -> None:
    pipe, ours, adapters = loaded({"one": write(tmp_path, CONFIGS["every_layer"])})
    layers = dict(adapters["one"].layers)
    break_ours(layers)
    broken = Adapter(source=tmp_path, digest="", layers=layers)
    actual = mode(ours, {"one": broken}, {"one": 1.0})
    assert relative_error(actual, reference_forward(pipe.transformer, INPUTS)) > TOLERANCE


def test_the_plain_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    _, ours, adapters = loaded({"one": write(tmp_path, CONFIGS["every_layer"])})
    before = our_forward(ours, INPUTS)
    chosen = AdapterSet(ours, adapters)
    assert torch.equal(our_forward(ours, INPUTS), before)
    with chosen.activate({"one": 1.0}):
        assert not torch.equal(our_forward(ours, INPUTS), before)
    assert torch.equal(our_forward(ours, INPUTS), before)
    with chosen.activate({"one": 0.0}):
        assert torch.equal(our_forward(ours, INPUTS), before)


@torch.inference_mode()
def test_text_keys_belong_to_the_active_adapters(tmp_path: Path) -> None:
    _, ours, adapters = loaded({"one": write(tmp_path, CONFIGS["attention"])})
    plain = ours.encode_text(INPUTS.text)
    with AdapterSet(ours, adapters).activate({"one": 1.0}):
        adapted = ours.encode_text(INPUTS.text)
    for before, after in zip(plain, adapted, strict=True):
        assert all(relative_error(new, old) > TOLERANCE for new, old in zip(after[:2], before[:2], strict=True))


@pytest.mark.parametrize("config", ["every_layer", "biases"])
def test_merged_and_applied_agree_in_bfloat16(tmp_path: Path, config: str) -> None:
    """bfloat16 rounds by up to 2**-9, the two modes at different places; the adapter's effect is far larger."""
    _, ours, adapters = loaded({"one": write(tmp_path, CONFIGS[config])})
    expected = merged(ours, adapters, {"one": 1.0})
    half = transformers(SHAPE)[1]
    for name, parameter in half.named_parameters():
        parameter.data = parameter.to(parameter_dtype(name, torch.bfloat16))
    for mode in (applied, merged):
        actual = mode(half, adapters, {"one": 1.0})
        assert actual.dtype == torch.bfloat16
        assert relative_error(actual, expected) < 0.05
    assert relative_error(our_forward(transformers(SHAPE)[1], INPUTS), expected) > 0.2
