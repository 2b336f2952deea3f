"""A machine without the GPUs that replicas ask for refuses to start, at once and with the reason."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import ray

from helios_engine.loading.tiny import write_tiny
from helios_services.config import ConfigError, ServiceConfig, load_config
from helios_services.deployments import serving
from helios_services.deployments.gpu_room import check_gpus
from helios_services.planning.layout import fits
from support.processes import HELIOS

ROOT = Path(__file__).parents[3]
ONE_H100 = {"CPU": 16.0, "GPU": 1.0, "accelerator_type:H100": 1.0}


def configured(tmp_path: Path, text: str) -> ServiceConfig:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return load_config(file, {})


def test_the_documented_example_fits_one_gpu(tmp_path: Path) -> None:
    page = (ROOT / "docs/operations.md").read_text()
    (example,) = re.findall(r"machine with one GPU.+?```yaml\n(.+?)```", page, re.DOTALL)
    config = configured(tmp_path, example)
    assert config.denoiser.device == config.decoder.device == config.text_encoder.device == "cuda"
    check_gpus(config, ONE_H100)
    check_gpus(config, {"GPU": 1.0})
    with pytest.raises(ConfigError, match="1 in all"):
        check_gpus(config, {"CPU": 16.0})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "denoiser: {device: cuda, num_gpus: 1}\ndecoder: {device: cuda, num_gpus: 0.5}",
            "1.5 in all (denoiser 1 x 1, decoder 1 x 0.5)",
        ),
        (
            "denoiser: {device: cuda, num_gpus: 0.6, autoscaling: {min_replicas: 2, max_replicas: 2}}",
            "1.2 in all (denoiser 2 x 0.6) is not allowed; allowed: what fits 1 GPUs",
        ),
        ("denoiser: {device: cuda, num_gpus: 1, parallel: {ulysses_degree: 2}}", "2 in all (denoiser 2 x 1)"),
        (
            "decoder: {device: cuda, num_gpus: 1, accelerator_type: L40S}",
            "decoder.accelerator_type: 'L40S' is not allowed; allowed: empty, or what Ray finds on this machine, "
            "['H100']",
        ),
        (
            "dispatcher: {node_resource: cpu}",
            "dispatcher.node_resource: 'cpu' is not allowed on this machine; allowed: empty",
        ),
    ],
)
def test_more_than_there_is_is_refused(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        check_gpus(configured(tmp_path, text), ONE_H100)


def test_a_share_lies_on_one_gpu(tmp_path: Path) -> None:
    three = configured(
        tmp_path, "denoiser: {device: cuda, num_gpus: 0.6, autoscaling: {min_replicas: 3, max_replicas: 3}}"
    )
    with pytest.raises(ConfigError, match=re.escape("1.8 in all (denoiser 3 x 0.6)")):
        check_gpus(three, {"GPU": 2.0})
    check_gpus(three, {"GPU": 3.0})
    assert fits([0.5, 0.7, 0.3, 0.5], 2)
    assert not fits([0.1], 0)


def test_replicas_that_may_come_later_are_no_reason(tmp_path: Path) -> None:
    text = "denoiser: {device: cuda, num_gpus: 1, autoscaling: {min_replicas: 1, max_replicas: 8}}"
    check_gpus(configured(tmp_path, text), ONE_H100)


def test_a_worker_without_gpus_says_so_instead_of_waiting(tmp_path: Path) -> None:
    checkpoint, file = tmp_path / "tiny", tmp_path / "config.yaml"
    write_tiny(checkpoint)
    file.write_text(f"state_dir: {tmp_path}/state\ndenoiser: {{device: cuda, num_gpus: 0.5}}\n")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [HELIOS, "worker", "--config", str(file), "--checkpoint", str(checkpoint)],
        env=environment | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "cuda is asked for, but there is no GPU of compute capability 8.0 or more: denoiser" in done.stderr


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({}, {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}),
        ({"PYTORCH_ALLOC_CONF": "backend:native"}, {"PYTORCH_ALLOC_CONF": "backend:native"}),
        ({"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}, {"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}),
    ],
)
def test_replicas_of_a_machine_share_its_gpus_memory(
    given: dict[str, str], seen: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What Ray's processes inherit; a choice of the operator's, under either name, stands."""
    monkeypatch.setattr(os, "environ", dict(given))
    inherited: dict[str, str] = {}
    monkeypatch.setattr(ray, "init", lambda **_: inherited.update(os.environ))
    monkeypatch.setattr(ray, "cluster_resources", dict)
    for name in ("stay_on_loopback", "check_authenticated", "check_on_loopback"):
        monkeypatch.setattr(serving, name, lambda: None)
    serving._start(ServiceConfig(), tmp_path)
    assert {name: value for name, value in inherited.items() if name.startswith("PYTORCH_")} == seen
