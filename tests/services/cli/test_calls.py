"""What the command line asks servers for, without starting it anew for each case."""

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from helios.v1 import video_generation_pb2 as pb
from helios_engine.errors import InvalidField
from helios_services.cli import app, jobs, local, remote, serve
from helios_services.cli.connect import connect
from helios_services.cli.errors import UserError
from helios_services.config import GatewayConfig, ServiceConfig
from support.authority import Authority


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Where videos were asked for: "here" or the server, and the priority."""
    calls: list[tuple[str, Any]] = []

    def remotely(prompt: str, fields: Any, output: Path, server: str, *, priority: str, **_: object) -> None:
        calls.append((server, priority))

    monkeypatch.setattr(remote, "generate_remotely", remotely)
    monkeypatch.setattr(local, "generate_here", lambda *_: calls.append(("here", None)))
    monkeypatch.delenv("HELIOS_SERVER", raising=False)
    return calls


def run(*words: str, **environ: str) -> None:
    outcome = CliRunner().invoke(app, words, env=environ, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output


def test_generate_asks_the_server_that_the_environment_names(asked: list[tuple[str, Any]]) -> None:
    run("generate", "a lake", HELIOS_SERVER="a:1")
    run("generate", "a lake", "--server", "b:2", "--priority", "batch", HELIOS_SERVER="a:1")
    run("generate", "a lake", "--checkpoint", "/models/x", HELIOS_SERVER="a:1")
    run("generate", "a lake")
    assert asked == [("a:1", "normal"), ("b:2", "batch"), ("here", None), ("here", None)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("generate", "a lake", "--device", "gpu"), "device: 'gpu' is not allowed; allowed: auto, cpu, cuda or cuda"),
        (("generate", "a lake", "--priority", "now"), "priority: 'now' is not allowed; allowed: interactive, normal"),
        (("jobs", "ls", "--state", "foo"), "state: 'foo' is not allowed; allowed: queued, running"),
    ],
)
def test_a_wrong_word_is_told_what_is_allowed(words: tuple[str, ...], said: str, asked: list[tuple[str, Any]]) -> None:
    with pytest.raises(InvalidField) as caught:
        run(*words)
    assert said in str(caught.value)
    assert asked == []


def test_a_gpu_that_is_not_there_is_said_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device: 'cuda' is not allowed; allowed: auto and cpu, for torch finds"):
        local.generate_here("a lake", {}, tmp_path / "x.mp4", local.Local(checkpoint="/nowhere", device="cuda"))


def test_a_list_for_another_program_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    job = pb.Job(id="0123456789abcdef" * 2, state=pb.JOB_STATE_FAILED, priority=pb.PRIORITY_BATCH, chunks_total=4)
    job.error.reason, job.error.message = "WORKER_LOST", "a worker died,\nand another " + "x" * 300
    jobs._show([job], False)
    head, row = capsys.readouterr().out.splitlines()
    assert head.split("\t")[:3] == ["id", "state", "priority"]
    cells = row.split("\t")
    assert cells[:4] == [job.id, "failed", "batch", "0/4"]
    assert cells[-1].startswith("WORKER_LOST: a worker died, and another xxx")
    assert cells[-1].endswith("x" * 300)


def test_a_client_certificate_comes_with_its_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path, "authority").issue("client")
    monkeypatch.setenv("HELIOS_CERTIFICATE_FILE", str(certificate))
    with pytest.raises(UserError, match="HELIOS_CERTIFICATE_FILE, HELIOS_KEY_FILE: must be given together"):
        connect("localhost:1")
    monkeypatch.setenv("HELIOS_KEY_FILE", str(key))
    with connect("localhost:1"):
        pass  # its certificate is one that gRPC takes
    monkeypatch.setenv("HELIOS_KEY_FILE", str(tmp_path / "missing"))
    with pytest.raises(UserError, match="missing"):
        connect("localhost:1")


@pytest.mark.parametrize(
    ("gateway", "warnings"),
    [
        (GatewayConfig(), 0),
        (GatewayConfig(host="0.0.0.0"), 2),
        (GatewayConfig(host="0.0.0.0", api_keys_file="keys.yaml"), 1),
        (GatewayConfig(host="::", api_keys_file="k", tls_certificate_file="c", tls_key_file="k"), 0),
    ],
)
def test_an_open_door_is_warned_of(gateway: GatewayConfig, warnings: int, capsys: pytest.CaptureFixture[str]) -> None:
    serve._warn_of_open_door(ServiceConfig(gateway=gateway))
    said = capsys.readouterr().err.splitlines()
    assert [line.startswith(f"helios: warning: gateway.host: {gateway.host}: ") for line in said] == [True] * warnings
