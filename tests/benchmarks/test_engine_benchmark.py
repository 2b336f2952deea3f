"""The engine benchmark's own code, on tiny models: that it compares the same work. Nothing is timed here."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import engine
from benchmarks.ablation import ablations
from benchmarks.peers import Peers, build
from benchmarks.rows import rows
from benchmarks.sizes import SIZES
from parity.reference import TOLERANCE, relative_error


@pytest.fixture(scope="module")
def peers() -> Peers:
    return build(SIZES["tiny"])


def test_rows_compare_the_same_work(peers: Peers) -> None:
    names = []
    for row in rows(SIZES["tiny"], peers):
        with torch.inference_mode():
            ours, theirs = row.ours(), row.theirs(peers.diffusers)
        names.append(row.name)
        if row.name.startswith("end to end"):  # the same frames, rounded to 8 bits
            assert (ours - theirs).abs().max() <= 1 / 255
        else:
            assert relative_error(ours, theirs.view(ours.shape)) < TOLERANCE, row.name
    assert tuple(names) == engine.ROW_NAMES


def test_ablations_do_not_change_results(peers: Peers) -> None:
    for one in ablations(SIZES["tiny"], peers.ours):
        with torch.inference_mode():
            with_it, without = one.with_it(), one.without()
        if one.taken:
            assert isinstance(with_it, torch.Tensor)
            assert isinstance(without, torch.Tensor)
            assert relative_error(with_it, without) < TOLERANCE, one.name


def test_a_size_without_its_device_is_recorded_as_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = tmp_path / "result.json"
    monkeypatch.setattr("sys.argv", ["engine", "--size", "gpu-full", "--output", str(file)])
    threads = torch.get_num_threads()
    try:
        engine.main()
    finally:
        torch.set_num_threads(threads)
    report = json.loads(file.read_text())
    assert report["rows"] == dict.fromkeys(engine.ROW_NAMES, engine.NOT_MEASURED)
    assert engine.NOT_MEASURED in capsys.readouterr().out
