"""`helios config`: the configuration as a process would have it."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from helios_services.cli import app
from helios_services.config import ConfigError, ServiceConfig, load_config


def run(*args: str, **environ: str) -> str:
    """What `helios config` prints. Raises what it raises."""
    done = CliRunner().invoke(app, ["config", *args], env=environ)
    if done.exception is not None:
        raise done.exception
    return done.output


def test_show_prints_every_setting_as_a_file_that_gives_the_same_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("gateway: {port: 5}\nmodel: {warm_up_sizes: [[64, 64]]}\n")
    shown = run("show", "--config", str(file), HELIOS_DENOISER__PROMPT_CACHE_ENTRIES="9")
    again = tmp_path / "again.yaml"
    again.write_text(shown)
    config = load_config(again, {})
    assert (config.gateway.port, config.denoiser.prompt_cache_entries) == (5, 9)
    assert config.model.warm_up_sizes == ((64, 64),)
    assert set(yaml.safe_load(shown)) == set(ServiceConfig.model_fields)


def test_show_leaves_passwords_out() -> None:
    shown = run("show", HELIOS_REDIS_URL="redis://worker:hunter22@redis:6379/0")
    assert "hunter22" not in shown
    assert "@redis:6379/0" in shown


def test_check_accepts_what_is_valid_and_names_what_is_not() -> None:
    assert run("check", HELIOS_GATEWAY__PORT="5") == "the configuration is valid\n"
    with pytest.raises(ConfigError, match=r"gateway\.prot \(HELIOS_GATEWAY__PROT\) is not a setting"):
        run("check", HELIOS_GATEWAY__PROT="5")


def test_the_schema_describes_settings_and_allows_no_other() -> None:
    schema = json.loads(run("schema"))
    denoiser = schema["$defs"]["DenoiserConfig"]
    assert denoiser["additionalProperties"] is False
    assert denoiser["properties"]["fp8"]["type"] == "boolean"
    assert "8-bit floating point" in denoiser["properties"]["fp8"]["description"]
