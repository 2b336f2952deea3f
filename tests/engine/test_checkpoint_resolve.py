"""Checkpoints by Hub id, against a Hub cache laid out on disk; the network is never used."""

import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from helios_engine.checkpoint.open import open_checkpoint
from helios_engine.checkpoint.resolve import FILES, resolve_checkpoint
from helios_engine.errors import CheckpointError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ALLOWED = "a checkpoint folder, or a Hub id as org/name or org/name@revision"


@pytest.fixture
def cache(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub cache that holds `checkpoint` as org/helios at main and v1, as links to blobs."""
    from huggingface_hub import constants

    repo = tmp_path / "hub" / "models--org--helios"
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    for ref in ("main", "v1"):
        (repo / "refs" / ref).write_text(COMMIT)
    files = sorted(path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file())
    for number, file in enumerate(files):
        blob, link = repo / "blobs" / f"{number:040x}", repo / "snapshots" / COMMIT / file
        blob.write_bytes((checkpoint / file).read_bytes())
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repo


@pytest.mark.parametrize("name", ["org/helios", "org/helios@v1", f"org/helios@{COMMIT}"])
def test_a_cached_id_is_found_and_opens(name: str, cache: Path) -> None:
    found = resolve_checkpoint(name)
    assert found == cache / "snapshots" / COMMIT
    assert open_checkpoint(found).variant == "distilled"


def test_the_environment_says_where_the_cache_is_and_that_there_is_no_network(cache: Path) -> None:
    code = "from helios_engine.checkpoint.resolve import resolve_checkpoint; print(resolve_checkpoint('org/helios'))"
    set_by_tests = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}
    environment = {name: value for name, value in os.environ.items() if name not in set_by_tests}
    environment |= {"HF_HOME": str(cache.parents[1]), "HF_HUB_OFFLINE": "1"}
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert printed.stdout.strip() == str(cache / "snapshots" / COMMIT)


@pytest.mark.parametrize("name", ["org/other", "org/helios@v2", f"org/helios@{COMMIT[::-1]}"])
def test_what_is_not_cached_is_named(name: str, cache: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint(name)
    message = str(caught.value)
    assert message.startswith(f"{name}: is not a folder, and no snapshot of it can be had from the Hub: ")
    assert message.endswith(f"Allowed: {ALLOWED}")
    assert "\n" not in message


def test_an_existing_folder_is_taken_as_it_is(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org/helios").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_checkpoint("org/helios") == Path("org/helios")
    assert resolve_checkpoint(tmp_path) == tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "file",
        "helios",
        "/models/helios",
        "./org/helios",
        "a/b/c",
        "org/helios@",
        "org/helios@../../x",
        "@main",
        "org/ä",
    ],
)
def test_what_is_neither_a_folder_nor_an_id_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        resolve_checkpoint(name)
    assert str(caught.value) == f"{Path(name)}: is not a folder; allowed: {ALLOWED}"


def test_only_what_is_loaded_is_asked_for(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, Any]] = []

    def download(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo, revision))
        assert allow_patterns == list(FILES)
        return str(checkpoint)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve_checkpoint("org/helios@v1") == checkpoint
    assert asked == [("org/helios", "v1")]

    def wanted(name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in FILES)

    files = [str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()]
    assert all(map(wanted, [*files, "tokenizer/spiece.model", "SHA256SUMS"]))
    unwanted = ["vae/model.bin", "transformer/a.pt", "text_encoder/model.pkl", "transformer_2/a.safetensors", "run.py"]
    assert not any(map(wanted, unwanted))
