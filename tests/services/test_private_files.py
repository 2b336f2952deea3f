"""Folders whose contents nobody else can exchange."""

import os
from pathlib import Path

import pytest

from helios_services.config import ConfigError
from helios_services.private_files import check_folder


@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_a_folder_of_another_user_is_refused_whatever_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """Its owner may rename what lies in it, sticky or not."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)
    if os.geteuid() == 0:
        os.chown(folder, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigError, match=r"state_dir: .* allowed: a folder that is this user's or root's"):
        check_folder("state_dir", folder)


def test_a_folder_of_ones_own_is_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(0o777)
    check_folder("state_dir", folder)
    assert folder.stat().st_mode & 0o022 == 0
