"""Strict loading on a small table of tensors: sharding, dtypes, and disagreements between index, shards and model."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from helios_engine.checkpoint import load_weights
from helios_engine.checkpoint.weights import stream_weights
from helios_engine.errors import CheckpointError

A, B = torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7, torch.arange(4, dtype=torch.bfloat16)
EXPECTED = {"a": A.shape, "b.scale": B.shape}


def write(folder: Path, shards: Mapping[str, Mapping[str, torch.Tensor]], index: Mapping[str, str]) -> None:
    for file, tensors in shards.items():
        save_file(dict(tensors), folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": dict(index)}))


def load(folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return load_weights(folder, EXPECTED, device="cpu", dtype_of=lambda _: dtype)


def refusal(folder: Path) -> list[str]:
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    return [line.removeprefix(f"{folder}/") for line in str(caught.value).splitlines()]


def test_tensors_come_from_every_shard_each_in_its_own_dtype(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"1.safetensors": {"a": A}, "2.safetensors": {"b.scale": B}},
        {"a": "1.safetensors", "b.scale": "2.safetensors"},
    )
    weights = load_weights(
        tmp_path,
        EXPECTED,
        device="cpu",
        dtype_of=lambda name: torch.float32 if name.endswith("scale") else torch.bfloat16,
    )
    assert {name: tensor.dtype for name, tensor in weights.items()} == {"a": torch.bfloat16, "b.scale": torch.float32}
    assert torch.equal(weights["a"], A.bfloat16())
    assert torch.equal(weights["b.scale"], B.float())


def test_tensors_that_the_reference_ignores_are_ignored(tmp_path: Path) -> None:
    save_file({"a": A, "b.scale": B, "blocks.0.attn2.norm_added_q.weight": A.clone()}, tmp_path / "model.safetensors")
    assert load(tmp_path).keys() == EXPECTED.keys()


def test_a_tensor_in_another_shard_than_the_index_says(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"1.safetensors": {"a": A}, "2.safetensors": {"b.scale": B}},
        {"a": "2.safetensors", "b.scale": "1.safetensors"},
    )
    assert refusal(tmp_path) == [
        "2.safetensors: tensor a: is not in it (index and shard disagree)",
        "2.safetensors: tensor b.scale: is not in the index (index and shard disagree)",
        "1.safetensors: tensor a: is not in the index (index and shard disagree)",
        "1.safetensors: tensor b.scale: is not in it (index and shard disagree)",
    ]


def test_every_bad_shard_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"1.safetensors": {"a": A}}, {"a": "1.safetensors", "b.scale": "2.safetensors"})
    data = (tmp_path / "1.safetensors").read_bytes()
    (tmp_path / "1.safetensors").write_bytes(data[:-1])
    first, second = refusal(tmp_path)
    assert first.startswith("1.safetensors: is truncated")
    assert second == "2.safetensors: is missing (the index names it for tensor b.scale)"


@pytest.mark.parametrize(
    "name", ["../1.safetensors", "/etc/1.safetensors", "sub/1.safetensors", "..", "1.bin", "", 3, None]
)
def test_an_index_names_files_beside_it_only(name: str, tmp_path: Path) -> None:
    write(tmp_path, {"1.safetensors": {"a": A}}, {"a": "1.safetensors", "b.scale": name})
    (line,) = refusal(tmp_path)
    assert line == (
        f"model.safetensors.index.json: tensor b.scale: file {name!r} is not a safetensors file beside the index"
    )


def test_pickles_are_never_read(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(CheckpointError, match=r"only pickled weights \(model\.bin\), which are never loaded"):
        load(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_most_one_shard_is_mapped_and_none_afterwards(dtype: torch.dtype, tmp_path: Path) -> None:
    names = [f"{number}.safetensors" for number in range(4)]
    write(
        tmp_path,
        {name: {f"a{name}": A, f"b{name}": A + 1} for name in names},
        {f"{t}{n}": n for n in names for t in "ab"},
    )
    expected = {f"{tensor}{name}": A.shape for name in names for tensor in "ab"}
    kept = {}
    for name, tensor in stream_weights(tmp_path, expected, device="cpu", dtype_of=lambda _: dtype):
        kept[name] = tensor
        assert mapped(tmp_path) == {name[1:]}
    assert mapped(tmp_path) == set()
    for name in names:  # what is loaded does not depend on the file any more
        (tmp_path / name).write_bytes(bytes((tmp_path / name).stat().st_size))
    assert all(torch.equal(tensor, (A + (name[0] == "b")).to(dtype)) for name, tensor in kept.items())


def mapped(folder: Path) -> set[str]:
    """Files of the folder that this process maps."""
    paths = (line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines())
    return {Path(path).name for path in paths if path.startswith(str(folder))}
