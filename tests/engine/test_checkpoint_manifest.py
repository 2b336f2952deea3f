"""SHA256SUMS: what coreutils writes is read, and every file that is not as listed is named."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from helios_engine.checkpoint.manifest import check_manifest
from helios_engine.errors import CheckpointError

ODD = "a\\n b\nc\u2028d.json"
"""A file's name that coreutils escapes, with a line separator that it does not."""


def write(root: Path, files: dict[str, bytes], *flags: str) -> Path:
    """The files, and a manifest of them by coreutils itself."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    printed = subprocess.run(["sha256sum", *flags, "--", *files], cwd=root, capture_output=True, check=True).stdout
    (root / "SHA256SUMS").write_bytes(printed)
    return root


def problems(root: Path) -> list[str]:
    with pytest.raises(CheckpointError) as caught:
        check_manifest(root)
    return str(caught.value).replace(f"{root}/", "").splitlines()


needs_coreutils = pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs coreutils' sha256sum")
pytestmark = needs_coreutils


@pytest.mark.parametrize("flags", [(), ("--binary",)])
def test_what_coreutils_writes_is_read(flags: tuple[str, ...], tmp_path: Path) -> None:
    root = write(tmp_path, {"a.json": b"{}", "vae/b c.safetensors": bytes(100_000), "./d": b"", ODD: b"odd"}, *flags)
    report = check_manifest(root)
    assert (report.files, report.bytes, report.unlisted) == (4, 100_005, ())


def test_every_file_that_is_missing_or_differs_is_named(tmp_path: Path) -> None:
    root = write(tmp_path, {"good": b"1", "vae/gone": b"2", "longer": b"3", "turned": b"4"})
    (root / "vae/gone").unlink()
    (root / "longer").write_bytes(b"33")
    (root / "turned").write_bytes(b"5")
    was, found = (hashlib.sha256(data).hexdigest() for data in (b"4", b"5"))
    gone, longer, turned = problems(root)
    assert gone == "vae/gone: is listed in SHA256SUMS and cannot be read: No such file or directory"
    assert longer.startswith("longer: has SHA-256 ")
    assert turned == f"turned: has SHA-256 {found}, SHA256SUMS says {was}"


def test_files_to_load_that_are_not_listed_are_reported(tmp_path: Path) -> None:
    root = write(tmp_path, {"a.json": b"{}"})
    for name in ("vae/b.safetensors", "notes.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    assert check_manifest(root).unlisted == ("vae/b.safetensors",)


def test_a_checkpoint_without_manifest_or_with_an_empty_one(tmp_path: Path) -> None:
    assert problems(tmp_path) == ["SHA256SUMS: cannot be read: No such file or directory"]
    (tmp_path / "SHA256SUMS").write_text("\n \n")
    assert problems(tmp_path) == ["SHA256SUMS: lists no file"]
    (tmp_path / "SHA256SUMS").write_bytes(b"\xff")
    assert problems(tmp_path)[0].startswith("SHA256SUMS: is not UTF-8")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "vae/../../outside", "nul\0"])
def test_files_outside_of_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    assert problems(tmp_path) == [
        f"SHA256SUMS: line 1: file {name!r} is not allowed; allowed: files in the checkpoint's folder"
    ]


@pytest.mark.parametrize("line", ["0" * 63 + "  a", "0" * 64, "0" * 64 + " a", "g" * 64 + "  a", "SHA256 (a) = 00"])
def test_a_line_that_is_no_entry_is_named(line: str, tmp_path: Path) -> None:
    root = write(tmp_path, {"a": b""})
    (root / "SHA256SUMS").write_text((root / "SHA256SUMS").read_text() + line + "\n")
    (message,) = problems(root)
    assert message.startswith("SHA256SUMS: line 2: ")
    assert message.endswith("is not allowed; allowed: 64 hexadecimal digits, two spaces, a file")
