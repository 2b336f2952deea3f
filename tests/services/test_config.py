"""Configuration: precedence, strictness, and the list of public settings."""

import re
from pathlib import Path

import pytest

from helios_services.config import ConfigError, ModelConfig, Section, ServiceConfig, load_config, with_variant

ROOT = Path(__file__).parents[2]


def test_environment_beats_file_beats_defaults(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("gateway: {port: 1, drain_s: 7}\nlog_level: debug\n")
    env = {"HELIOS_GATEWAY__PORT": "2", "HELIOS_REDIS_URL": "redis://r", "HELIOS_STATE_DIR": str(tmp_path)}
    config = load_config(file, env)
    assert (config.gateway.port, config.gateway.drain_s, config.log_level) == (2, 7.0, "debug")
    assert (config.redis.url, config.state_dir, config.gateway.host) == ("redis://r", tmp_path, "127.0.0.1")
    assert config.artifacts == str(tmp_path / "artifacts")
    assert load_config(environ={"HELIOS_CONFIG": str(file)}).gateway.port == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("gateway: {port: 70000}", ["gateway.port", "70000", "65535"]),
        ("gateway: {prot: 1}\njobs: {lease_s: -1}", ["gateway.prot is not a setting", "jobs.lease_s", "-1"]),
        ("redis: {namespace: 'a b'}", ["redis.namespace", "'a b'"]),
        ("jobs: {lease_s: .nan}", ["jobs.lease_s", "nan"]),
        ("jobs: {lease_s: 8, heartbeat_s: 5}", ["jobs.heartbeat_s", "at most half of lease_s, 4"]),
        (
            "denoiser: {device: cuda, num_gpus: 0.5, parallel: {ring_degree: 2}}",
            ["denoiser", "num_gpus must be 1 with 2 ranks on cuda"],
        ),
        ("denoiser: {num_cpus: 0, parallel: {cfg_degree: 2}}", ["denoiser", "num_cpus must not be 0 with 2 ranks"]),
        ("denoiser: {parallel: {cfg_degree: 3}}", ["denoiser.parallel.cfg_degree", "3"]),
        ("denoiser: {device: cpu, compile: graphs}", ["denoiser", "compile must be off or regional on cpu, is graphs"]),
        ("denoiser: {compile: regional, parallel: {ring_degree: 2}}", ["compile must be off with 2 ranks"]),
        ("denoiser: {fp8: true, offload_budget_gb: 9}", ["offload_budget_gb must not be set with fp8 or compile"]),
        ("model: {loras: {a: b}}\ndenoiser: {compile: regional}", ["model.loras must be empty"]),
        ("denoiser: {device: cpu, attention: cudnn}", ["denoiser", "attention must be auto or torch on cpu, is cudnn"]),
        ("denoiser: {attention: sage}", ["denoiser.attention", "'sage'", "'efficient'"]),
        (
            "model: {dtype: float32}\ndenoiser: {fp8: true, device: cuda, num_gpus: 1}",
            ["model.dtype must be bfloat16 with denoiser.fp8 on a GPU, is float32"],
        ),
        ("denoiser: {device: gpu}", ["denoiser.device", "'gpu'", "'cpu' or 'cuda'"]),
        ("denoiser: {device: 'cuda:1', num_gpus: 1}", ["denoiser.device", "'cuda:1'", "'cpu' or 'cuda'"]),
        (
            "decoder: {device: cuda, num_gpus: 0}",
            ["decoder", "num_gpus must be more than 0 and at most 1 with device cuda, is 0"],
        ),
        ("text_encoder: {device: cpu, num_gpus: 0.5}", ["text_encoder", "num_gpus must be 0 with device cpu, is 0.5"]),
        ("denoiser: {device: cuda, num_gpus: 2}", ["denoiser.num_gpus: 2 (", "less than or equal to 1; or ", "'auto'"]),
        (
            "denoiser: {autoscaling: {max_replicas: 0}}",
            ["denoiser.autoscaling.max_replicas: 0 (", "greater than 0; or"],
        ),
        (
            "model: {dtype: float32}\ndenoiser: {attention: cudnn, device: cuda, num_gpus: 1}",
            ["model.dtype must be bfloat16 with denoiser.attention cudnn, is float32"],
        ),
        (
            "model: {variant: distilled, warm_up_sizes: [[400, 640]]}",
            ["warm_up_sizes: height", "400", "multiple of 64"],
        ),
        ("model: {warm_up_sizes: [[401, 640]]}", ["warm_up_sizes: height", "401", "multiple of 16"]),
        ("model: {variant: base, warm_up_sizes: [[400, 641]]}", ["warm_up_sizes: width", "641", "multiple of 16"]),
        ("model: {warm_up_sizes: [[1024, 1024]]}", ["warm_up_sizes: 1024x1024", "at most max_pixels, 983,040"]),
        ("[1]", ["must hold a mapping"]),
        ("a: [", ["config.yaml"]),
    ],
)
def test_bad_files_are_explained(tmp_path: Path, text: str, named: list[str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file, {})
    for part in named:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"GATEWAY__PROT": "1"}, "gateway.prot (HELIOS_GATEWAY__PROT) is not a setting; did you mean gateway.port?"),
        ({"GATWAY__PORT": "1"}, "gatway (HELIOS_GATWAY__PORT) is not a setting; did you mean gateway?"),
        ({"CHECKPOINT": "/m"}, "checkpoint (HELIOS_CHECKPOINT) is not a setting; did you mean model.checkpoint?"),
        ({"DENOISER__PARALLEL__RING": "2"}, "did you mean denoiser.parallel.ring_degree?"),
        ({"TRACING__ZZZ": "2"}, "(HELIOS_TRACING__ZZZ) is not a setting; allowed: otlp_endpoint, sample_ratio,"),
        ({"REDIS__PASSWORD": "hunter22"}, "is not a setting; did you mean redis.password_file?"),
        ({"GATEWAY__PORT": "70000"}, "gateway.port (HELIOS_GATEWAY__PORT): '70000' (Input should be less"),
        ({"WEBHOOKS__URLS": "[a"}, "webhooks.urls (HELIOS_WEBHOOKS__URLS): must be a list or a mapping as YAML"),
        ({"GATEWAY": "1", "GATEWAY__PORT": "1"}, "(HELIOS_GATEWAY__PORT): gateway must be a mapping, is '1'"),
    ],
)
def test_a_wrong_name_or_value_says_what_was_meant_and_where_it_came_from(environ: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(environ={f"HELIOS_{name}": value for name, value in environ.items()})
    assert told in str(caught.value)
    assert "hunter22" not in str(caught.value)


def test_every_setting_can_be_set_by_the_environment(tmp_path: Path) -> None:
    config = load_config(
        environ={
            "HELIOS_WEBHOOKS__URLS": "https://a.example/hook, https://b.example",
            "HELIOS_WEBHOOKS__SECRET_FILE": "secret",
            "HELIOS_MODEL__WARM_UP_SIZES": "[[384, 640], [128, 64]]",
            "HELIOS_MODEL__LORAS": "{Pirate: p.safetensors}",
            "HELIOS_MODEL__MERGED_LORAS__STYLE": "0.5",
            "HELIOS_DECODER__ACTIVATION_BUDGET_GB": "null",
            "HELIOS_DISPATCHER__CHUNK_OBJECTIVE_S": "1.7",
        }
    )
    assert config.webhooks.urls == ("https://a.example/hook", "https://b.example")
    assert config.model.warm_up_sizes == ((384, 640), (128, 64))
    assert (config.model.loras, config.model.merged_loras) == ({"Pirate": "p.safetensors"}, {"style": 0.5})
    assert config.decoder.activation_budget_gb is None
    assert config.dispatcher.chunk_objective_s == 1.7
    assert load_config(environ={"HELIOS_WEBHOOKS__URLS": ""}).webhooks.urls == ()


def test_the_default_warm_up_goes_where_requests_cannot() -> None:
    assert ModelConfig().warm_ups == [(384, 640)]
    assert ModelConfig(max_pixels=200_000).warm_ups == []
    assert ModelConfig(warm_up_sizes=((64, 128),), max_pixels=200_000).warm_ups == [(64, 128)]


def test_warm_up_sizes_are_checked_by_what_the_checkpoint_is() -> None:
    config = ServiceConfig(model=ModelConfig(warm_up_sizes=((480, 832),)))
    assert with_variant(config, "base").model.warm_ups == [(480, 832)]
    with pytest.raises(ConfigError, match=r"model: .*warm_up_sizes: height: 480 .*multiple of 64"):
        with_variant(config, "distilled")


def variables() -> dict[str, str]:
    """Every environment variable with our prefix that the packages name, and a file that does."""
    folders = (ROOT / "helios_engine", ROOT / "kernels", ROOT / "services")
    files = [path for folder in folders for path in folder.rglob("*.py")]
    return {
        name: str(path.relative_to(ROOT))
        for path in files
        for name in re.findall(r"\bHELIOS_[A-Z][A-Z_]*", path.read_text())
    }


def test_no_variable_of_ours_is_refused(tmp_path: Path) -> None:
    """A process that is told something by one must not end because of it."""
    empty = tmp_path / "config.yaml"
    empty.write_text("")
    found = variables()
    assert {"HELIOS_CONFIG", "HELIOS_SERVER", "HELIOS_KERNELS", "HELIOS_REDIS_URL"} <= found.keys()
    refused = {name: file for name, file in found.items() if "is not a setting" in complaint(empty, {name: "1"})}
    assert refused == {}


def complaint(file: Path, environ: dict[str, str]) -> str:
    """What is wrong, if anything."""
    try:
        load_config(file, environ)
    except ConfigError as error:
        return str(error)
    return ""


def test_public_settings_change_only_on_purpose() -> None:
    sections = {name: field.annotation for name, field in ServiceConfig.model_fields.items()}
    counts = {
        name: len(kind.model_fields)
        for name, kind in sections.items()
        if isinstance(kind, type) and issubclass(kind, Section)
    }
    assert counts == {
        "model": 10,
        "redis": 9,
        "jobs": 16,
        "gateway": 20,
        "dispatcher": 21,
        "text_encoder": 15,
        "denoiser": 21,
        "decoder": 19,
        "media": 15,
        "tracing": 3,
        "webhooks": 8,
    }
