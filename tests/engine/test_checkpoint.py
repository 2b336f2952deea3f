"""Damaged checkpoints are refused with the file and the tensor or key named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helios_engine.errors import CheckpointError
from helios_engine.loading.check import check_checkpoint
from helios_engine.loading.denoiser import load_denoiser
from helios_engine.loading.text import load_text_encoder
from helios_engine.loading.tiny import write_tiny
from helios_engine.loading.vae import load_decoder

TRANSFORMER_INDEX = "transformer/diffusion_pytorch_model.safetensors.index.json"
SHARD = "transformer/diffusion_pytorch_model-00001-of-00002.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def edit_json(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def edit_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def load_all(root: Path) -> None:
    load_denoiser(root, dtype=torch.float32)
    load_decoder(root)
    load_text_encoder(root, dtype=torch.float32)


def _truncate(root: Path) -> None:
    data = (root / SHARD).read_bytes()
    (root / SHARD).write_bytes(data[: len(data) // 2])


def _hijack_index(root: Path) -> None:
    index = json.loads((root / TRANSFORMER_INDEX).read_text())
    index["weight_map"]["proj_out.bias"] = "../../secrets.safetensors"
    (root / TRANSFORMER_INDEX).write_text(json.dumps(index))


def _swap_in_index(root: Path) -> None:
    index = json.loads((root / TRANSFORMER_INDEX).read_text())
    del index["weight_map"]["proj_out.bias"]
    (root / TRANSFORMER_INDEX).write_text(json.dumps(index))


def _only_pickle(root: Path) -> None:
    (root / VAE).rename(root / "vae/diffusion_pytorch_model.bin")


def _json(file: str, **values: Any) -> Callable[[Path], None]:
    return lambda root: edit_json(root / file, **values)


def _tensors(file: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    return lambda root: edit_tensors(root / file, change)


BIAS = "decoder.conv_out.bias"
DAMAGE: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "no index": (lambda root: (root / "model_index.json").unlink(), ["model_index.json", "cannot be read"]),
    "not JSON": (lambda root: (root / "vae/config.json").write_text("{"), ["vae/config.json", "is not JSON"]),
    "pipeline class": (_json("model_index.json", _class_name="FluxPipeline"), ["_class_name", "FluxPipeline"]),
    "vae class": (_json("vae/config.json", _class_name="AutoencoderKL"), ["vae/config.json", "AutoencoderKL"]),
    "scheduler class": (
        _json("model_index.json", scheduler=["diffusers", "HeliosScheduler"]),
        ["is_distilled", "HeliosScheduler"],
    ),
    "config type": (_json("transformer/config.json", num_layers="2"), ["transformer/config.json", "num_layers", "'2'"]),
    "config value": (_json("transformer/config.json", rope_dim=[8, 8, 4]), ["rope_dim", "sum attention_head_dim"]),
    "missing": (_tensors(VAE, lambda t: t.pop(BIAS)), ["vae", BIAS, "is missing"]),
    "unexpected": (_tensors(VAE, lambda t: t.update(extra=torch.ones(1))), [VAE, "extra", "is unexpected"]),
    "shape": (_tensors(VAE, lambda t: t.update({BIAS: torch.ones(4)})), [VAE, BIAS, "[4]", "[3]"]),
    "dtype": (
        _tensors(VAE, lambda t: t.update({BIAS: torch.ones(3, dtype=torch.int32)})),
        [VAE, BIAS, "I32"],
    ),
    "truncated": (_truncate, [SHARD, "truncated"]),
    "absent shard": (lambda root: (root / SHARD).unlink(), [SHARD, "is missing"]),
    "path traversal": (_hijack_index, ["index.json", "proj_out.bias", "secrets"]),
    "index disagrees": (_swap_in_index, ["proj_out.bias", "not in the index"]),
    "pickle": (_only_pickle, ["vae", "diffusion_pytorch_model.bin", "never loaded"]),
    "text config": (_json("text_encoder/config.json", model_type="t5"), ["text_encoder/config.json", "'t5'"]),
    "text shape": (_json("text_encoder/config.json", d_ff=40), ["text_encoder", "expected [40, 32]"]),
}


@pytest.mark.parametrize(("damage", "named"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named_by_check_and_by_loading(damage: Callable[[Path], Any], named: list[str], copy: Path) -> None:
    damage(copy)
    for attempt in (check_checkpoint, load_all):
        with pytest.raises(CheckpointError) as caught:
            attempt(copy)
        for part in named:
            assert part in str(caught.value)


def test_check_lists_every_problem(copy: Path) -> None:
    edit_tensors(copy / VAE, lambda tensors: tensors.pop(BIAS))
    (copy / SHARD).unlink()
    with pytest.raises(CheckpointError) as caught:
        check_checkpoint(copy)
    assert len(str(caught.value).splitlines()) == 2


def test_missing_tokenizer_is_named(copy: Path) -> None:
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(CheckpointError, match="tokenizer: is missing"):
        check_checkpoint(copy)


@pytest.mark.parametrize("variant", ["base", "mid", "distilled"])
def test_tiny_checkpoints_are_sound_and_reproducible(variant: Any, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_tiny(tmp_path / name, variant=variant, seed=3)
    report = check_checkpoint(tmp_path / "one")
    assert report.variant == variant
    assert {part.name for part in report.components} == {"transformer", "vae", "text_encoder"}
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) > 8
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_float32_parts_stay_float32_in_bfloat16(checkpoint: Path) -> None:
    transformer = load_denoiser(checkpoint, dtype=torch.bfloat16).transformer
    dtypes = {name: parameter.dtype for name, parameter in transformer.named_parameters()}
    for name in ("norm_out.scale_shift_table", "condition_embedder.time_embedder.linear_1.weight"):
        assert dtypes[name] == torch.float32
    for name in ("blocks.0.norm2.weight", "blocks.0.attn1.history_key_scale", "blocks.1.scale_shift_table"):
        assert dtypes[name] == torch.float32
    for name in ("proj_out.weight", "blocks.0.attn1.norm_q.weight", "condition_embedder.time_proj.weight"):
        assert dtypes[name] == torch.bfloat16
