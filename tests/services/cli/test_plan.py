"""`helios plan`, and what `helios generate` makes of a model that the machine cannot hold."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from helios_engine.errors import DoesNotFit, InvalidField
from helios_engine.pipeline import HeliosPipeline
from helios_services.cli import app
from helios_services.config import ConfigError, load_config
from support.full_size import write_full_size


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published configurations."""
    folder = tmp_path_factory.mktemp("full")
    write_full_size(folder)
    return folder


def run(*words: str, **environ: str) -> Result:
    return CliRunner().invoke(app, ["plan", *words], env=environ | {"COLUMNS": "160"}, catch_exceptions=False)


def test_a_plan_is_a_table_with_reasons(full_size: Path) -> None:
    printed = run(str(full_size), "--gpus", "1x24", "--memory", "64").output
    assert "Plan for 1 x GPU, 24 GB; 64 GB of host memory" in printed
    for words in ("text encoder", "0.77 of a GPU", "blocks; the others are copied", "Does not fit on a GPU"):
        assert words in printed, printed


def test_the_yaml_is_a_configuration(full_size: Path, tmp_path: Path) -> None:
    written = run("--gpus", "8x80", "--memory", "2000", "--yaml", HELIOS_MODEL__CHECKPOINT=str(full_size)).stdout
    file = tmp_path / "plan.yaml"
    file.write_text(written)
    config = load_config(file, {})
    assert config.model.checkpoint == str(full_size)
    assert config.denoiser.autoscaling.max_replicas == 6
    assert run("--config", str(file), "--gpus", "8x80", "--memory", "2000", "--yaml").stdout == written


def test_a_machine_without_gpus_refuses_the_whole_model(full_size: Path) -> None:
    with pytest.raises(ConfigError, match=r"14\.3 billion.*cpu by name"):
        run(str(full_size), "--gpus", "0", "--memory", "64")
    with pytest.raises(InvalidField, match="gpus: '80' is not allowed; allowed: number x GB"):
        run(str(full_size), "--gpus", "80")


def test_the_tiny_model_runs_on_a_cpu(checkpoint: Path) -> None:
    assert "dtype: float32" in run(str(checkpoint), "--gpus", "0", "--yaml").stdout


def test_a_pipeline_chooses_likewise(full_size: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DoesNotFit, match=r"14\.3 billion"):
        HeliosPipeline.from_pretrained(full_size)
    pipeline = HeliosPipeline.from_pretrained(checkpoint)
    assert (pipeline.denoiser.device.type, pipeline.denoiser.dtype) == ("cpu", torch.float32)
    by_name = HeliosPipeline.from_pretrained(checkpoint, device="cpu", dtype=torch.bfloat16)
    assert by_name.denoiser.dtype == torch.bfloat16
