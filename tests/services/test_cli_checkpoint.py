"""`helios tiny` and `helios check` in this process: what they print, and how they end."""

import hashlib
import sys
from pathlib import Path

import pytest

from helios_engine.loading.check import check_checkpoint
from helios_engine.loading.tiny import write_tiny
from helios_services.cli import main

VAE = "vae/diffusion_pytorch_model.safetensors"


def helios(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    monkeypatch.setattr(sys, "argv", ["helios", *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_check_shows_what_each_component_holds(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert helios(monkeypatch, "check", checkpoint) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("distilled checkpoint, sound" in line for line in lines)
    for part in check_checkpoint(checkpoint).components:
        (row,) = [line for line in lines if f" {part.name} " in line]
        for cell in (f"{part.tensors:,}", f"{part.parameters:,}", f"{part.bytes:,}", "F32"):
            assert f" {cell} " in row


def test_check_prints_every_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert helios(monkeypatch, "tiny", tmp_path / "tiny") == 0
    (tmp_path / "tiny" / VAE).write_bytes(b"")
    (tmp_path / "tiny/text_encoder/model.safetensors").unlink()
    capsys.readouterr()
    assert helios(monkeypatch, "check", tmp_path / "tiny") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    first, second = printed.err.splitlines()
    assert VAE in first
    assert "truncated" in first
    assert "text_encoder: holds no" in second


def test_tiny_writes_over_a_folder_only_when_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert helios(monkeypatch, "tiny", tmp_path) == 1
    assert "--force" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert helios(monkeypatch, "tiny", tmp_path, "--force", "--variant", "mid") == 0
    assert helios(monkeypatch, "tiny", tmp_path, "--force", "--seed", "5") == 0
    assert check_checkpoint(tmp_path).variant == "distilled"
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert helios(monkeypatch, "tiny", tmp_path / "notes.txt", "--force") == 1


def test_tiny_names_the_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert helios(monkeypatch, "tiny", tmp_path, "--variant", "turbo") == 1
    assert "'turbo' is not allowed; allowed: base, mid, distilled" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_check_hashes_what_the_manifest_lists_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny(tmp_path)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    sums = {str(file): hashlib.sha256((tmp_path / file).read_bytes()).hexdigest() for file in files}
    unlisted = sums.pop("vae/config.json")
    assert unlisted
    (tmp_path / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    assert helios(monkeypatch, "check", tmp_path, "--sha256") == 0
    printed = capsys.readouterr().out
    assert f"SHA256SUMS: {len(sums)} files with " in printed
    assert printed.count("is not listed") == 1
    assert "SHA256SUMS: vae/config.json is not listed" in printed

    data = bytearray((tmp_path / VAE).read_bytes())
    data[-1] ^= 1
    (tmp_path / VAE).write_bytes(data)
    assert helios(monkeypatch, "check", tmp_path) == 0  # headers do not show it
    capsys.readouterr()
    assert helios(monkeypatch, "check", tmp_path, "--sha256") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / VAE}: has SHA-256 " in line
    (tmp_path / VAE).unlink()
    assert helios(monkeypatch, "check", tmp_path, "--sha256") == 1
    header, hashed = capsys.readouterr().err.splitlines()
    assert "vae: holds no " in header
    assert f"{tmp_path / VAE}: is listed in SHA256SUMS and cannot be read" in hashed
