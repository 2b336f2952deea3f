"""Machines are found, or described in words."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helios_engine.errors import InvalidField
from helios_engine.planning import machine
from helios_engine.planning.machine import GB, Gpu, described, this_machine


@pytest.mark.parametrize("words", ["2", "x80", "2x", "0x80", "2x0", "2x80GB", "-1x80", "65x80", ""])
def test_what_describes_no_machine_is_refused(words: str) -> None:
    with pytest.raises(InvalidField, match=r"gpus: .*allowed: number x GB, for example 1x80"):
        described(words)


def test_a_machine_in_words() -> None:
    found = described("2x23.5", 64 * GB)
    assert [gpu.memory_bytes for gpu in found.gpus] == [23_500_000_000] * 2
    assert (found.host_bytes, found.nvlink) == (64 * GB, True)
    assert described("0").gpus == ()
    assert str(described("0", 64 * GB)).startswith("no GPU; 64 GB of host memory; ")


def test_a_machine_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = this_machine()
    assert found.gpus == ()
    assert found.cores >= 1
    assert found.host_bytes > GB
    assert this_machine(5 * GB).host_bytes == 5 * GB


def test_gpus_are_looked_at_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"gpus": [{"name": "H", "memory_bytes": 5, "capability": [9, 0]}], "nvlink": True, "cudnn": 91500}
    asked = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        asked.append(command[1:])
        return SimpleNamespace(stdout=json.dumps(told))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(subprocess, "run", run)
    found = this_machine()
    assert asked == [["-m", "helios_engine.planning.machine"]]
    assert found.gpus == (Gpu(name="H", memory_bytes=5, capability=(9, 0)),)
    assert (found.nvlink, found.cudnn) == (True, 91500)


def test_what_the_other_process_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    card = SimpleNamespace(name="H", total_memory=5, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    machine._print_gpus()
    told = json.loads(capsys.readouterr().out)
    assert [Gpu(**gpu | {"capability": tuple(gpu["capability"])}) for gpu in told["gpus"]] == [
        Gpu(name="H", memory_bytes=5, capability=(9, 0))
    ] * 2
    assert told["nvlink"] is False, "no driver says so here"


def test_a_container_has_what_it_may_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "CGROUP_LIMITS", (limit, tmp_path / "none"))
    limit.write_text("123456\n")
    assert machine._host_bytes() == 123456
    limit.write_text("max\n")
    assert machine._host_bytes() > GB
