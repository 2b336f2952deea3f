"""A file is checked before work begins, and takes its place whole or not at all."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helios_services.cli import app
from helios_services.cli.errors import UserError
from helios_services.cli.output import written


def test_the_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    target.write_text("before")
    with written(target) as file:
        file.write_text("after")
        assert target.read_text() == "before"
        assert file.parent == tmp_path
    assert target.read_text() == "after"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask()


def umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    target.write_text("before")
    with pytest.raises(ZeroDivisionError), written(target) as file:
        file.write_text("half" if 1 / 0 else "")
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_place_that_cannot_be_written_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for path, named in (
        (tmp_path / "folder", r"is a folder; allowed: the name of a file, like .*folder/out\.mp4"),
        (tmp_path / "link", "is a folder"),
        (tmp_path / "missing" / "out.mp4", "the folder '.*missing' does not exist"),
        (Path("/proc/out.mp4"), "cannot be written: "),
        (tmp_path / ("x" * 300), "cannot be written: File name too long"),
    ):
        with pytest.raises(UserError, match=named), written(path):
            pytest.fail("the work began")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may look into."""
    with tempfile.TemporaryDirectory(prefix="helios-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_folders_and_files_of_others(open_folder: Path) -> None:
    (open_folder / "theirs.mp4").write_text("")
    os.seteuid(65534)
    try:
        for name in ("out.mp4", "theirs.mp4"):
            with pytest.raises(UserError, match="cannot be written: Permission denied"), written(open_folder / name):
                pytest.fail("the work began")
    finally:
        os.seteuid(0)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    with (
        pytest.raises(UserError, match=r"^output: .*out\.mp4: cannot be written: No space left on device"),
        written(target),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), written(target):  # another file's trouble is not this one's
        raise FileNotFoundError(errno.ENOENT, "No such file", "/somewhere/else")
    assert list(tmp_path.iterdir()) == []


def test_links_and_devices_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "real.mp4").write_text("before")
    link = tmp_path / "link.mp4"
    link.symlink_to("real.mp4")
    with written(link) as file:
        file.write_text("after")
    assert link.is_symlink()
    assert (tmp_path / "real.mp4").read_text() == "after"
    with written(Path("/dev/null")) as file:
        file.write_text("nothing")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_generating_into_a_folder_fails_at_once_with_one_line(checkpoint: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["generate", "x", "--checkpoint", str(checkpoint), "-o", str(tmp_path)])
    assert done.exit_code == 1 or done.exception is not None
    assert "is a folder" in done.output + done.stderr + str(done.exception)
