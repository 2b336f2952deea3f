"""`helios keys ls|rotate|revoke`: a file of API keys that an operator keeps by hand as well."""

import stat
from pathlib import Path

import pytest
import yaml

from helios_services.cli import keys
from helios_services.cli.errors import UserError
from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.keys import KeyRing, Quotas, new_key
from helios_services.gateway.guard.refusal import Refusal

PLAIN = frozenset({Scope.SUBMIT, Scope.READ})


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A file with comments, indented as people do, and its keys."""
    keys_made = {
        name: new_key(name, "web", PLAIN, account=account, quotas=Quotas(max_queued=7))
        for name, account in (("web-1", "shop"), ("batch", ""))
    }
    text = "# who may call\nkeys:\n"
    for name, (_, entry) in keys_made.items():
        item = yaml.safe_dump([entry.model_dump(mode="json")], sort_keys=False)
        text += f"  # {name}: made by hand\n" + "".join(f"  {line}\n" for line in item.splitlines())
    file = tmp_path / "keys.yaml"
    file.write_text(text + "# the end\n")
    file.chmod(0o640)
    return file, {name: key for name, (key, _) in keys_made.items()}


def account_of(file: Path, key: str) -> str:
    """Whom a call with the key is counted for; empty if it is refused."""
    try:
        caller = KeyRing(str(file)).authenticate("SubmitJob", (("authorization", f"Bearer {key}"),))
    except Refusal:
        return ""
    assert (caller.tenant, caller.scopes, caller.account.max_queued) == ("web", PLAIN, 7)
    return caller.account.id


def test_a_key_is_exchanged_and_taken_away(
    made: tuple[Path, dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    file, old = made
    new = []
    for key_id in ("web-1", "batch", "batch"):
        keys.rotate(key_id, file)
        new.append(capsys.readouterr().err.split(": ")[1].strip())
    assert [key.partition(".")[0] for key in new] == ["web-2", "batch-2", "batch-3"]
    assert [account_of(file, key) for key in (*old.values(), *new)] == ["shop", "batch", "shop", "batch", "batch"]
    for key_id in ("web-1", "batch-2"):
        keys.revoke(key_id, file)
    assert [account_of(file, key) for key in (*old.values(), *new)] == ["", "batch", "shop", "", "batch"]
    text = file.read_text()
    for comment in ("# who may call\n", "  # batch: made by hand\n", "# the end\n"):
        assert comment in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in file.parent.iterdir()] == ["keys.yaml"]
    capsys.readouterr()
    keys.ls(file)
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        [name, "web", of, "read,submit"] for name, of in (("batch", "batch"), ("web-2", "shop"), ("batch-3", "batch"))
    ]


def test_without_the_last_key_nobody_may_call(made: tuple[Path, dict[str, str]]) -> None:
    file, old = made
    for key_id in old:
        keys.revoke(key_id, file)
    assert [account_of(file, key) for key in old.values()] == ["", ""]


def test_a_wrong_name_or_file_changes_nothing(made: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    file, _ = made
    before = file.read_bytes()
    for change in (keys.rotate, keys.revoke):
        with pytest.raises(UserError, match=r"key_id: 'web' is not allowed; allowed: web-1, batch, which .* has"):
            change("web", file)
        with pytest.raises(UserError, match="No such file"):
            change("web", tmp_path / "none.yaml")
    assert file.read_bytes() == before
    entries = [entry.model_dump(mode="json") for _, entry in (new_key(name, "t", PLAIN) for name in "ab")]
    file.write_text(yaml.safe_dump({"keys": entries}, default_flow_style=True))
    with pytest.raises(UserError, match="must be a list of lines"):
        keys.revoke("a", file)
    assert [entry["id"] for entry in yaml.safe_load(file.read_text())["keys"]] == ["a", "b"]
