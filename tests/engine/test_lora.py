"""Adapter files that must be refused, each by name and value; and what may be activated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from helios_engine.configs import TransformerConfig
from helios_engine.errors import CheckpointError, InvalidField
from helios_engine.lora import Adapter, AdapterSet, LowRank, load_adapter, merge
from helios_engine.model.transformer import HeliosTransformer

Q = "transformer.blocks.0.attn1.to_q"
TIME = "transformer.condition_embedder.time_embedder.linear_1"
PATCH = "transformer.patch_long"
DIM, RANK = 48, 4


def model(*, freq_dim: int = 32) -> HeliosTransformer:
    torch.manual_seed(0)
    config = TransformerConfig(
        num_attention_heads=2,
        attention_head_dim=24,
        rope_dim=(8, 8, 8),
        num_layers=1,
        text_dim=24,
        freq_dim=freq_dim,
        ffn_dim=56,
    )
    return HeliosTransformer(config).eval()


@pytest.fixture(scope="module")
def transformer() -> HeliosTransformer:
    with torch.device("meta"):
        return model()


def tensors(prefix: str = "transformer.") -> dict[str, torch.Tensor]:
    """An adapter of three layers."""
    shapes = {
        f"{Q}.lora_A.weight": (RANK, DIM),
        f"{Q}.lora_B.weight": (DIM, RANK),
        f"{TIME}.lora_A.weight": (RANK, 32),
        f"{TIME}.lora_B.weight": (DIM, RANK),
        f"{PATCH}.lora_A.weight": (RANK, 16, 4, 8, 8),
        f"{PATCH}.lora_B.weight": (DIM, RANK, 1, 1, 1),
    }
    generator = torch.Generator().manual_seed(1)
    return {
        prefix + key.removeprefix("transformer."): torch.randn(shape, generator=generator) * 0.1
        for key, shape in shapes.items()
    }


def settings(**values: Any) -> dict[str, str]:
    """A header as diffusers writes it."""
    given = {"r": RANK, "lora_alpha": 8, "peft_type": "LORA", "bias": "none", "use_dora": False} | values
    return {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in given.items()})}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "style.safetensors"


def refusal(path: Path, transformer: HeliosTransformer) -> list[str]:
    with pytest.raises(CheckpointError) as caught:
        load_adapter(path, transformer)
    return [line.removeprefix(f"{path}").removeprefix(": ") for line in str(caught.value).splitlines()]


def scalings(adapter: Adapter) -> dict[str, float]:
    return {name: update.scaling for name, update in adapter.layers.items()}


def test_layers_go_by_published_name_and_patches_are_flattened(file: Path, transformer: HeliosTransformer) -> None:
    save_file(tensors(), file)
    adapter = load_adapter(file, transformer)
    assert {name: [*update.down.shape, *update.up.shape] for name, update in adapter.layers.items()} == {
        "blocks.0.attn1.to_q": [RANK, DIM, DIM, RANK],
        "condition_embedder.time_embedder.linear_1": [RANK, 32, DIM, RANK],
        "patch_long": [RANK, 16 * 4 * 8 * 8, DIM, RANK],
    }
    assert set(scalings(adapter).values()) == {1.0}


@pytest.mark.parametrize("prefix", ["", "transformer.", "base_model.model.", "diffusion_model."])
def test_prefixes(file: Path, transformer: HeliosTransformer, prefix: str) -> None:
    save_file(tensors(prefix), file)
    assert load_adapter(file, transformer).layers.keys() == {
        "blocks.0.attn1.to_q",
        "condition_embedder.time_embedder.linear_1",
        "patch_long",
    }


def test_alpha_tensors_scale_their_own_layer(file: Path, transformer: HeliosTransformer) -> None:
    save_file(tensors() | {f"{Q}.alpha": torch.tensor(6)}, file)
    assert sorted(scalings(load_adapter(file, transformer)).values()) == [1.0, 1.0, 6 / RANK]


def test_header_settings(file: Path, transformer: HeliosTransformer) -> None:
    save_file(tensors(), file, settings(lora_alpha=6, alpha_pattern={"to_q": 2.5}, use_rslora=True))
    assert scalings(load_adapter(file, transformer)) == {
        "blocks.0.attn1.to_q": 2.5 / 2,
        "condition_embedder.time_embedder.linear_1": 6 / 2,
        "patch_long": 6 / 2,
    }


def test_the_digest_tells_adapters_apart(tmp_path: Path, transformer: HeliosTransformer) -> None:
    save_file(tensors(), tmp_path / "a.safetensors", settings(lora_alpha=8))
    save_file(tensors(), tmp_path / "same.safetensors", settings(lora_alpha=8))
    save_file(tensors(), tmp_path / "alpha.safetensors", settings(lora_alpha=9))
    digests = [load_adapter(tmp_path / f"{name}.safetensors", transformer).digest for name in ("a", "same", "alpha")]
    assert digests[0] == digests[1] != digests[2]


def test_zeros_of_a_converter_are_ignored(file: Path, transformer: HeliosTransformer) -> None:
    zeros = {f"diffusion_model.blocks.0.{name}": torch.zeros(DIM) for name in ("norm3.diff", "self_attn.k.diff_b")}
    save_file(tensors("diffusion_model.") | zeros, file)
    assert len(load_adapter(file, transformer).layers) == 3


Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def _put(key: str, value: torch.Tensor) -> Change:
    return lambda found: found | {key: value}


def _without(key: str) -> Change:
    return lambda found: {name: tensor for name, tensor in found.items() if name != key}


NAN = torch.full((RANK, DIM), torch.nan)
REFUSED: list[tuple[Change, str]] = [
    (_put("transformer.blocks.0.attn1.to_x.lora_A.weight", torch.ones(4, 48)), "no linear layer of this name"),
    (_put("transformer.blocks.1.attn1.to_q.lora_A.weight", torch.ones(4, 48)), "no linear layer of this name"),
    (_put("transformer.blocks.0.norm2.lora_A.weight", torch.ones(4, 48)), "no linear layer of this name"),
    (_put(f"{Q}.weight", torch.ones(48, 48)), "is unexpected"),
    (_put(f"{Q}.lora_A.default.weight", torch.ones(4, 48)), "is unexpected"),
    (_put("text_encoder.block.0.lora_A.weight", torch.ones(4, 48)), "is unexpected; allowed: LoRA tensors, prefix 't"),
    (_put(f"{Q}.lora_magnitude_vector", torch.ones(48)), "DoRA"),
    (_put(f"{Q}.dora_scale", torch.ones(48, 1)), "DoRA"),
    (_put(f"{Q}.diff", torch.ones(48, 48)), "is a full weight difference"),
    (_put(f"{Q}.lora_down.weight", torch.ones(4, 48)), f"is given already as tensor {Q}.lora_A.weight"),
    (_put(f"{Q}.lora_A.weight", torch.ones(4, 47)), "has shape [4, 47], expected [4, 48]"),
    (_put(f"{Q}.lora_B.weight", torch.ones(48, 3)), "has shape [48, 3], expected [48, 4]"),
    (_put(f"{Q}.lora_B.weight", torch.ones(48)), "has shape [48], expected [48, 4]"),
    (_put(f"{Q}.lora_A.weight", torch.ones(())), "has shape [], expected a rank above 0"),
    (_put(f"{Q}.lora_A.weight", torch.ones(0, 48)), "has shape [0, 48], expected a rank above 0"),
    (_put(f"{Q}.lora_B.bias", torch.ones(47)), "has shape [47], expected [48]"),
    (_put(f"{PATCH}.lora_A.weight", torch.ones(4, 4096)), "has shape [4, 4096], expected [4, 16, 4, 8, 8]"),
    (_put(f"{PATCH}.lora_B.weight", torch.ones(48, 4)), "has shape [48, 4], expected [48, 4, 1, 1, 1]"),
    (_put(f"{Q}.lora_A.weight", torch.ones(4, 48, dtype=torch.int8)), "has dtype I8, expected one of"),
    (_put(f"{Q}.lora_A.weight", NAN), "holds NaN or infinity"),
    (_put(f"{Q}.lora_B.weight", torch.full((48, 4), -torch.inf)), "holds NaN or infinity"),
    (_put(f"{Q}.alpha", torch.tensor(torch.nan)), "holds NaN or infinity"),
    (_put(f"{Q}.alpha", torch.tensor(True)), "has dtype BOOL, expected one of"),
    (_put(f"{Q}.alpha", torch.ones(2)), "has shape [2], expected one number"),
    (_put(f"{TIME}.alpha", torch.ones(0)), "has shape [0], expected one number"),
    (_without(f"{Q}.lora_A.weight"), "matrix A is missing beside"),
    (_without(f"{PATCH}.lora_B.weight"), "matrix B is missing beside"),
    (_put("transformer.blocks.0.ffn.net.2.alpha", torch.tensor(1.0)), "matrix A and B is missing beside"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_tensors_that_are_refused(file: Path, transformer: HeliosTransformer, change: Change, message: str) -> None:
    before = tensors()
    after = change(before)
    save_file(after, file)
    changed = {key for key in before.keys() | after.keys() if before.get(key) is not after.get(key)}
    layer = changed.pop().removeprefix("transformer.").partition(".lora")[0]
    (line,) = refusal(file, transformer)
    assert message in line
    assert layer in line


def test_every_problem_is_named(file: Path, transformer: HeliosTransformer) -> None:
    save_file(tensors() | {f"{Q}.lora_A.weight": NAN, f"{TIME}.weight": torch.ones(1)}, file)
    assert refusal(file, transformer) == [
        f"tensor {Q}.lora_A.weight: holds NaN or infinity",
        f"tensor {TIME}.weight: is unexpected; allowed: LoRA tensors, prefix 'transformer.'",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lora_alpha": "8"}, "lora_alpha: '8' is not allowed; allowed: a finite number"),
        ({"lora_alpha": None}, "lora_alpha: None is not allowed"),
        ({"lora_alpha": True}, "lora_alpha: True is not allowed"),
        ({"lora_alpha": float("nan")}, "lora_alpha: nan is not allowed"),
        ({"lora_alpha": 10**400}, "lora_alpha: 1"),
        ({"r": 4.0}, "r: 4.0 is not allowed; allowed: an integer above 0"),
        ({"r": 0}, "r: 0 is not allowed"),
        ({"r": 3}, "rank 3 of layer blocks.0.attn1.to_q: its tensors have 4"),
        ({"rank_pattern": {"to_q": 2}}, "rank 2 of layer blocks.0.attn1.to_q: its tensors have 4"),
        ({"rank_pattern": {"to_q": -4}}, "rank_pattern: {'to_q': -4} is not allowed"),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern: {'(': 1} is not allowed"),
        ({"alpha_pattern": ["to_q"]}, "alpha_pattern: ['to_q'] is not allowed"),
        ({"use_rslora": "yes"}, "use_rslora: 'yes' is not allowed; allowed: true or false"),
        ({"use_dora": True}, "use_dora: True is not allowed; allowed: false; DoRA adapters are not supported"),
        ({"peft_type": "LOKR"}, "peft_type: 'LOKR' is not allowed; allowed: 'LORA'"),
        ({"bias": "all"}, "bias: 'all' is not allowed; allowed: 'none'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: 'pissa' is not allowed"),
        ({"modules_to_save": ["proj_out"]}, "modules_to_save: ['proj_out'] is not allowed"),
        ({"arrow_config": {"top_k": 3}}, "arrow_config: {'top_k': 3} is not allowed; allowed: null or false"),
        ({"invented_by_peft_2": 3}, "invented_by_peft_2: 3 is not allowed"),
    ],
)
def test_settings_that_are_refused(
    file: Path, transformer: HeliosTransformer, values: dict[str, Any], message: str
) -> None:
    save_file(tensors(), file, settings(**values))
    first, *_ = refusal(file, transformer)
    assert first.startswith("lora_adapter_metadata: ")
    assert message in first


def test_tensors_that_contradict_the_settings(file: Path, transformer: HeliosTransformer) -> None:
    both = {f"{Q}.alpha": torch.tensor(1.0), f"{Q}.lora_B.bias": torch.ones(DIM)}
    save_file(tensors() | both, file, settings())
    assert refusal(file, transformer) == [
        f"tensor {Q}.lora_B.bias: {file}: lora_adapter_metadata has lora_bias false",
        f"tensor {Q}.alpha: {file}: lora_adapter_metadata gives alpha already",
    ]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{", "lora_adapter_metadata: is not JSON"),
        ("[4]", "lora_adapter_metadata: holds list, expected an object"),
        ('{"r": 4}', "lora_adapter_metadata: key 'r' is not allowed; allowed: keys that begin with 'transformer.'"),
    ],
)
def test_headers_that_are_refused(file: Path, transformer: HeliosTransformer, header: str, message: str) -> None:
    save_file(tensors(), file, {"lora_adapter_metadata": header})
    (line,) = refusal(file, transformer)
    assert line.startswith(message)


@pytest.mark.parametrize("length", [0, 7, 200, -1])
def test_a_truncated_file(file: Path, transformer: HeliosTransformer, length: int) -> None:
    save_file(tensors(), file)
    file.write_bytes(file.read_bytes()[:length])
    (line,) = refusal(file, transformer)
    assert line.startswith("is truncated or no safetensors file")


def test_files_that_are_no_adapters(tmp_path: Path, file: Path, transformer: HeliosTransformer) -> None:
    assert refusal(file, transformer) == ["is missing"]
    save_file({}, file)
    assert refusal(file, transformer) == ["changes no layer"]
    pickle = tmp_path / "pytorch_lora_weights.bin"
    pickle.write_bytes(b"")
    assert refusal(pickle, transformer) == ["is not allowed; allowed: a .safetensors file, or a folder with one"]
    names = "pytorch_lora_weights.safetensors and adapter_model.safetensors; allowed: one of them"
    assert refusal(tmp_path, transformer) == [f"holds neither {names}"]
    for name in ("pytorch_lora_weights", "adapter_model"):
        save_file(tensors(), tmp_path / f"{name}.safetensors")
    assert refusal(tmp_path, transformer) == [f"holds both {names}"]


def test_a_peft_folder_needs_its_config(tmp_path: Path, transformer: HeliosTransformer) -> None:
    config = tmp_path / "adapter_config.json"
    save_file(tensors("base_model.model."), tmp_path / "adapter_model.safetensors")
    assert "cannot be read" in refusal(config.parent, transformer)[0]
    config.write_text(json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": "a lot"}))
    assert "lora_alpha: 'a lot'" in refusal(tmp_path, transformer)[0]
    config.write_text(json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": 2}))
    assert set(scalings(load_adapter(tmp_path, transformer)).values()) == {2 / RANK}


@pytest.fixture
def adapter(file: Path, transformer: HeliosTransformer) -> Adapter:
    save_file(tensors(), file)
    return load_adapter(file, transformer)


def test_an_adapter_of_another_model(adapter: Adapter) -> None:
    other = model(freq_dim=16)
    before = {name: parameter.clone() for name, parameter in other.named_parameters()}
    message = (
        f"{adapter.source}: layer condition_embedder.time_embedder.linear_1: "
        r"changes a weight of shape \[48, 32\], but the model's is \[48, 16\]"
    )
    with pytest.raises(CheckpointError, match=message):
        AdapterSet(other, {"style": adapter})
    with pytest.raises(CheckpointError, match=message):
        merge(other, [(adapter, 1.0)])
    assert all(torch.equal(parameter, before[name]) for name, parameter in other.named_parameters())


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), "1", None, True])
def test_scales_that_are_refused(adapter: Adapter, scale: Any) -> None:
    transformer = model()
    with (
        pytest.raises(InvalidField, match=r"adapters.style: .* is not allowed; allowed: a finite number"),
        AdapterSet(transformer, {"style": adapter}).activate({"style": scale}),
    ):
        pass
    with pytest.raises(InvalidField, match="a finite number"):
        merge(transformer, [(adapter, scale)])


def test_names_that_are_not_loaded(adapter: Adapter) -> None:
    chosen = AdapterSet(model(), {"style": adapter, "b": adapter})
    with (
        pytest.raises(
            InvalidField, match="adapters: 'stile' is not allowed; allowed: names of loaded adapters: b, sty"
        ),
        chosen.activate({"style": 1.0, "stile": 1.0}),
    ):
        pass
    assert chosen.active == ()
    chosen.remove("b")
    assert chosen.names == ["style"]
    with pytest.raises(InvalidField):
        chosen.remove("b")


def test_what_is_active(adapter: Adapter) -> None:
    transformer = model()
    chosen = AdapterSet(transformer, {"a": adapter, "b": adapter, "unused": adapter})
    weight = transformer.patch_long.weight
    assert not chosen.active
    assert not chosen.updates
    with chosen.activate({"b": 0.5, "a": 2, "unused": 0.0}):
        assert chosen.active == ((adapter.digest, 2.0), (adapter.digest, 0.5))
        assert chosen.updates.keys() == adapter.layers.keys()
        with pytest.raises(RuntimeError, match="active already"), chosen.activate({"a": 1.0}):
            pass
        assert transformer.patch_long.weight is not weight
        assert len(transformer.blocks[0].attn1.to_q._forward_hooks) == 1  # type: ignore[union-attr]
    assert not chosen.active
    assert not chosen.updates
    assert transformer.patch_long.weight is weight
    assert not any(module._forward_hooks for module in transformer.modules())


def test_an_error_in_the_context_deactivates(adapter: Adapter) -> None:
    transformer = model()
    chosen = AdapterSet(transformer, {"a": adapter})
    weight = transformer.patch_long.weight
    with pytest.raises(KeyError), chosen.activate({"a": 1.0}):
        raise KeyError
    assert chosen.active == ()
    assert transformer.patch_long.weight is weight
    assert not any(module._forward_hooks for module in transformer.modules())


@torch.inference_mode()
def test_the_order_of_names_does_not_matter(adapter: Adapter) -> None:
    transformer = model()
    doubled = {
        name: LowRank(down=update.down * 2, up=update.up, bias=None, scaling=0.3)
        for name, update in adapter.layers.items()
    }
    other = Adapter(source=adapter.source, digest="other", layers=doubled)
    chosen = AdapterSet(transformer, {"a": adapter, "b": other})
    layer, x = transformer.condition_embedder.time_embedder.linear_1, torch.ones(2, 32)
    results, active = [], set()
    for scales in ({"a": 0.7, "b": -0.4}, {"b": -0.4, "a": 0.7}):
        with chosen.activate(scales):
            results.append((layer(x), transformer.patch_long.weight.clone()))
            active.add(chosen.active)
    assert len(active) == 1
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))
