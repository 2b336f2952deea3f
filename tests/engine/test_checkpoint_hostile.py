"""Checkpoints made to harm who opens them: no code of theirs runs, nothing outside is read, nothing is waited for."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest

from helios_engine.checkpoint.open import MAX_JSON_BYTES
from helios_engine.errors import CheckpointError
from helios_engine.loading.check import check_checkpoint

CODE = """
from pathlib import Path
Path(__file__).with_name("RAN").touch()
from transformers import PretrainedConfig, PreTrainedTokenizerFast
class Tokenizer(PreTrainedTokenizerFast): pass
class Config(PretrainedConfig): model_type = "theirs"
"""
CHECK = (
    "import sys; from helios_engine.loading.check import check_checkpoint; print(check_checkpoint(sys.argv[1]).variant)"
)


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(copytree(checkpoint, tmp_path / "copy"))


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["theirs.Tokenizer", "theirs.Tokenizer"]}}),
        ("text_encoder/config.json", {"auto_map": {"AutoConfig": "theirs.Config"}, "model_type": "theirs"}),
    ],
)
def test_code_beside_a_configuration_is_not_run_even_if_somebody_says_yes(
    name: str, values: dict[str, object], copy: Path, tmp_path: Path
) -> None:
    edit(copy / name, **values, **({"tokenizer_class": "Tokenizer"} if "tokenizer" in name else {}))
    (copy / name).with_name("theirs.py").write_text(CODE)
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(copy)],
        input="y\n" * 9,
        env=os.environ | {"HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert [*tmp_path.rglob("RAN")] == []
    assert "[y/N]" not in done.stdout + done.stderr
    assert done.returncode == 0 or "CheckpointError" in done.stderr


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._marker}",)


@pytest.mark.parametrize("component", ["transformer", "vae", "text_encoder"])
@pytest.mark.parametrize("kept", [True, False], ids=["as safetensors", "as pickle"])
def test_a_pickle_is_not_loaded_whatever_it_is_called(component: str, kept: bool, copy: Path, tmp_path: Path) -> None:
    harmful = pickle.dumps(Runs(tmp_path / "RAN"))
    for file in (copy / component).glob("*.safetensors*"):
        if kept and file.suffix == ".safetensors":
            file.write_bytes(harmful)
        elif not kept:
            file.unlink()
            (copy / component / "pytorch_model.bin").write_bytes(harmful)
    with pytest.raises(CheckpointError, match=component):
        check_checkpoint(copy)
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd.safetensors", "a/../../b.safetensors", "..", ""]
)
def test_an_index_leads_nowhere_else(name: str, copy: Path) -> None:
    (index,) = (copy / "transformer").glob("*.index.json")
    weights = json.loads(index.read_text())["weight_map"]
    edit(index, weight_map=weights | {min(weights): name})
    with pytest.raises(CheckpointError, match="is not a safetensors file beside the index"):
        check_checkpoint(copy)


def too_long(file: Path) -> None:
    with file.open("w") as target:
        target.truncate(MAX_JSON_BYTES + 1)


def nested(file: Path) -> None:
    file.write_text("[" * 10**6)


def endless(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("spoil", [too_long, nested, endless, folder])
@pytest.mark.parametrize("name", ["model_index.json", "transformer/config.json"])
def test_files_that_would_take_all_memory_or_all_time(name: str, spoil: Callable[[Path], None], copy: Path) -> None:
    spoil(copy / name)
    with pytest.raises(CheckpointError, match=name):
        check_checkpoint(copy)
