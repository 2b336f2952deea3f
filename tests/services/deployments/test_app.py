"""The Serve application: every option set on purpose, and a configuration that `serve deploy` takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import RayActorOptionsSchema, ServeDeploySchema

from helios_services.config import (
    AutoscalingConfig,
    ConfigError,
    DecoderConfig,
    DenoiserConfig,
    DispatcherConfig,
    ParallelConfig,
    RedisConfig,
    ServiceConfig,
)
from helios_services.deployments.app import BuildArgs, build, build_app, deployment_options, work_policy
from helios_services.deployments.autoscaling.policy import WorkPolicy
from helios_services.deployments.dispatch.own_store import with_own_store


def test_a_gpu_denoiser_is_placed_on_its_accelerator() -> None:
    options = deployment_options(DenoiserConfig(num_gpus=1, accelerator_type="H100", device="cuda"))
    assert options["ray_actor_options"]["num_gpus"] == 1
    assert options["ray_actor_options"]["accelerator_type"] == "H100"
    assert options["num_replicas"] == 1
    assert options["max_ongoing_requests"] == 4


def test_cpu_replicas_ask_for_no_accelerator() -> None:
    assert "accelerator_type" not in deployment_options(DispatcherConfig())["ray_actor_options"]


def test_replicas_are_placed_on_a_group_of_nodes() -> None:
    asked = {"dispatchers": 0.001}
    options = deployment_options(DispatcherConfig(node_resource="dispatchers"))
    assert options["ray_actor_options"]["resources"] == asked
    ranks = DenoiserConfig(node_resource="dispatchers", parallel=ParallelConfig(ulysses_degree=2))
    assert deployment_options(ranks)["placement_group_bundles"] == [{"CPU": 1.0, **asked}] * 2
    with pytest.raises(ValidationError, match="node_resource"):
        DispatcherConfig(node_resource="two words")


def test_only_dispatchers_are_told_of_the_job_store() -> None:
    config = ServiceConfig(redis=RedisConfig(url="redis://:hunter22@r:6379/0"), artifact_url="/artifacts")
    dispatcher = build_app(config)._bound_deployment
    given, *stages = dispatcher.init_args
    assert given.redis.url == "redis://:hunter22@r:6379/0"
    assert len(stages) == 3
    for stage in stages:
        (others,) = stage._bound_deployment.init_args
        assert others.redis == RedisConfig()
        assert others.artifact_url == "/artifacts"


def test_a_dispatcher_of_a_cluster_takes_the_store_from_its_own_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model: {checkpoint: /models/x}\n")
    (built, *_) = build(BuildArgs(config=str(file)))._bound_deployment.init_args
    monkeypatch.setattr(os, "environ", {"HELIOS_CONFIG": str(file)})
    with pytest.raises(ConfigError, match=r"redis\.url: is empty"):
        with_own_store(built)
    monkeypatch.setenv("HELIOS_REDIS_URL", "rediss://r:6379/0")
    assert with_own_store(built).redis.url == "rediss://r:6379/0"
    given = built.model_copy(update={"redis": RedisConfig(url="redis://given")})
    assert with_own_store(given).redis.url == "redis://given"


def test_a_denoiser_of_many_ranks_reserves_their_resources_on_one_node() -> None:
    config = DenoiserConfig(
        num_gpus=1, accelerator_type="H100", device="cuda", parallel=ParallelConfig(ulysses_degree=2, cfg_degree=2)
    )
    options = deployment_options(config)
    assert options["placement_group_bundles"] == [{"CPU": 1.0, "GPU": 1.0, "accelerator_type:H100": 0.001}] * 4
    assert options["placement_group_strategy"] == "STRICT_PACK"
    assert not {"placement_group_bundles", "placement_group_strategy"} & deployment_options(DenoiserConfig()).keys()


def test_serve_build_writes_a_config_that_serve_deploy_takes(tmp_path: Path) -> None:
    file, built = tmp_path / "config.yaml", tmp_path / "serve.yaml"
    file.write_text(
        "model: {checkpoint: /models/x}\nredis: {url: 'redis://r'}\n"
        "denoiser: {device: cuda, num_gpus: 1, parallel: {ring_degree: 2},\n"
        "  autoscaling: {min_replicas: 0, max_replicas: 4}}\n"
    )
    command = [str(Path(sys.executable).parent / "serve"), "build", "helios_services.deployments.app:app"]
    environment = os.environ | {"HELIOS_CONFIG": str(file)}
    subprocess.run([*command, "-o", str(built)], env=environment, check=True, capture_output=True, timeout=120)
    (app,) = ServeDeploySchema.model_validate(yaml.safe_load(built.read_text())).applications
    deployments = {deployment.name: deployment for deployment in app.deployments}
    assert set(deployments) == {"text-encoder", "denoiser", "decoder", "dispatcher"}
    options = deployments["denoiser"].ray_actor_options
    assert isinstance(options, RayActorOptionsSchema)
    assert options.num_gpus == 1
    assert deployments["denoiser"].placement_group_bundles == [{"CPU": 1.0, "GPU": 1.0}] * 2
    scaling = deployments["denoiser"].autoscaling_config
    assert isinstance(scaling, dict)
    assert scaling["policy"]["policy_function"].endswith("autoscaling.policy:WorkPolicy")
    assert scaling["policy"]["policy_kwargs"]["slots"] == 3


def test_different_bounds_mean_autoscaling_by_work() -> None:
    scaling = AutoscalingConfig(min_replicas=0, max_replicas=8, backlog_target_s=7, downscale_delay_s=9)
    denoiser = DenoiserConfig(autoscaling=scaling)
    options = deployment_options(denoiser, work_policy("denoiser", denoiser, slots=6))
    assert "num_replicas" not in options
    config = options["autoscaling_config"]
    assert (config.min_replicas, config.max_replicas, config.upscale_delay_s) == (0, 8, 5)
    assert isinstance(WorkPolicy(**config.policy.policy_kwargs), WorkPolicy)  # it takes them
    assert config.policy.policy_kwargs == {
        "deployment": "denoiser",
        "slots": 6,
        "downscale_delay_s": 9,
        "backlog_target_s": 7,
        "live_utilization": 0.8,
        "assumed_chunk_s": 1.2,
    }


def test_equal_bounds_mean_a_fixed_number() -> None:
    decoder = DecoderConfig(autoscaling=AutoscalingConfig(min_replicas=3, max_replicas=3))
    assert work_policy("decoder", decoder, slots=6) is None
    assert deployment_options(decoder)["num_replicas"] == 3


def test_bounds_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValidationError, match="at least min_replicas, 3"):
        AutoscalingConfig(min_replicas=3, max_replicas=2)
    with pytest.raises(ValidationError, match="must be equal"):
        DispatcherConfig(autoscaling=AutoscalingConfig(min_replicas=1, max_replicas=2))


def test_the_builder_takes_a_file_and_nothing_unknown(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model: {checkpoint: /models/x}\nredis: {url: 'redis://r'}\n")
    assert build(BuildArgs(config=str(file)))._bound_deployment.name == "dispatcher"
    file.with_name("empty.yaml").write_text("redis: {url: 'redis://r'}\n")
    with pytest.raises(ConfigError, match=r"model\.checkpoint: is empty"):
        build(BuildArgs(config=str(file.with_name("empty.yaml"))))
    with pytest.raises(ValidationError, match="checkpoint"):
        BuildArgs(checkpoint="/models/x")  # type: ignore[call-arg]
    schema = ServeDeploySchema.model_validate(
        {
            "applications": [
                {
                    "name": "helios",
                    "route_prefix": None,
                    "import_path": "helios_services.deployments.app:build",
                    "args": {"config": str(file)},
                }
            ]
        }
    )
    assert schema.applications[0].import_path.endswith(":build")
