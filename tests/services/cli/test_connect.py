"""Where the command line has its API key from."""

from pathlib import Path

import pytest

from helios_services.cli.connect import _api_key
from helios_services.cli.errors import UserError


def test_the_key_comes_from_a_file_or_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HELIOS_API_KEY", "HELIOS_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert _api_key() == ""
    file = tmp_path / "key"
    file.write_text("me.secret\n")
    monkeypatch.setenv("HELIOS_API_KEY_FILE", str(file))
    assert _api_key() == "me.secret"
    monkeypatch.setenv("HELIOS_API_KEY", "other.secret")
    with pytest.raises(UserError, match="both are set"):
        _api_key()
    monkeypatch.delenv("HELIOS_API_KEY")
    file.unlink()
    with pytest.raises(UserError, match=r"HELIOS_API_KEY_FILE: .*key: No such file"):
        _api_key()
