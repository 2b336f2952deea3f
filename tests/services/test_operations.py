"""Every command of docs/operations.md and of the runbook's Redis entries runs (back-ups: test_backup)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.keys import KeyRing, new_key
from helios_services.jobs.embedded import EmbeddedRedis
from helios_services.jobs.records import Account
from helios_services.webhooks.sender import read_secrets
from support.redis_clients import blocking_client

ROOT = Path(__file__).parents[2]
SECTIONS = dict(
    re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", (ROOT / "docs/operations.md").read_text(), re.MULTILINE | re.DOTALL)
)


def blocks(title: str) -> list[str]:
    """The shell blocks of a section."""
    return re.findall(r"^```sh\n(.*?)^```", SECTIONS[title], re.MULTILINE | re.DOTALL)


def run(script: str, folder: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, **environ, "PATH": path}
    done = subprocess.run(["sh", "-euc", script], cwd=folder, env=env, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done


def test_there_are_no_commands_that_no_test_runs() -> None:
    fences = {title: re.findall(r"^```(\w+)$", text, re.MULTILINE) for title, text in SECTIONS.items()}
    assert {title for title, kinds in fences.items() if set(kinds) - {"yaml"}} == {
        "Who may call",
        "Webhooks",
        "Dead letters",  # services/gateway/test_quotas.py
        "Install, upgrade, roll back",
        "Back up",
    }


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_key_is_rotated(place: int, tmp_path: Path) -> None:
    made = {name: new_key(name, "web", frozenset(Scope)) for name in ("a", "b")}
    entries = [entry.model_dump(mode="json") for _, entry in made.values()]
    old_key, old = new_key("web-1", "web", frozenset(Scope))
    entries.insert(place, old.model_dump(mode="json"))
    file = tmp_path / "keys.yaml"
    file.write_text(yaml.safe_dump({"keys": entries}, sort_keys=False))

    def allowed(key: str) -> str:
        return KeyRing(str(file)).authenticate("SubmitJob", (("authorization", f"Bearer {key}"),)).key_id

    _, block = blocks("Who may call")
    add, remove, show = block.splitlines()
    new_one = run(add, tmp_path).stderr.split(": ")[1].strip()
    assert [allowed(key) for key in (old_key, new_one)] == ["web-1", "web-2"]
    run(remove, tmp_path)
    assert [line.split("\t")[0] for line in run(show, tmp_path).stdout.splitlines()] == ["a", "b", "web-2"]
    assert [entry["id"] for entry in yaml.safe_load(file.read_text())["keys"]] == ["a", "b", "web-2"]
    assert [allowed(key) for key in (new_one, made["a"][0], made["b"][0])] == ["web-2", "a", "b"]


def test_a_key_with_quotas_is_made(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text("keys:\n")
    made, _ = blocks("Who may call")
    key = run(made, tmp_path).stderr.split(": ")[1].strip()
    caller = KeyRing(str(tmp_path / "keys.yaml")).authenticate("SubmitJob", (("authorization", f"Bearer {key}"),))
    account = Account(id="batch-1", weight=0.5, max_queued=100, video_minutes_per_day=600)
    assert (caller.tenant, caller.account) == ("web", account)


def test_a_webhook_secret_is_made(tmp_path: Path) -> None:
    (block,) = blocks("Webhooks")
    run(block, tmp_path)
    (secret,) = read_secrets(str(tmp_path / "webhook-secrets"))
    assert len(secret) == len("whsec_") + 32


def test_a_checkpoint_is_checked_before_it_is_used(checkpoint: Path, tmp_path: Path) -> None:
    (block,) = blocks("Install, upgrade, roll back")
    run(block, tmp_path, CHECKPOINT=str(checkpoint))


@pytest.mark.parametrize(
    "line", sorted(set(re.findall(r"`(redis-cli config [^`]+)`", (ROOT / "docs/runbook.md").read_text())))
)
def test_redis_takes_the_runbooks_commands(line: str, server: EmbeddedRedis) -> None:
    _, *words = line.split()
    with blocking_client(server.url, decode_responses=True) as client:
        before = client.config_get(words[2])
        assert client.execute_command(*words) == "OK"
        client.config_set(words[2], before[words[2]])
