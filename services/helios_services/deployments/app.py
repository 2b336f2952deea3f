"""The Ray Serve application.

Import paths: `helios_services.deployments.app:build` takes arguments (`serve run`, `serve deploy`, RayService);
`helios_services.deployments.app:app` is configured by the environment alone, as `serve build` wants it.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.config import AutoscalingConfig

from helios_services.config import ConfigError, DeploymentConfig, ServiceConfig, load_config
from helios_services.deployments.rank_placement import replica_placement

ENVIRONMENT = {
    # tensors are read in place from the object store; nothing here writes to a tensor it received
    "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class BuildArgs(BaseModel):
    """Arguments of `build`: a configuration file; unset, HELIOS_CONFIG and the environment decide."""

    model_config = ConfigDict(extra="forbid")

    config: str | None = None


def build(args: BuildArgs) -> serve.Application:
    """The application for a configuration file. Raises ConfigError, also when Redis or the checkpoint is not named."""
    config = load_config(args.config)
    for name, value in (("redis.url", config.redis.url), ("model.checkpoint", config.model.checkpoint)):
        if not value:
            raise ConfigError(f"{name}: is empty; it must be set to deploy on a cluster")
    return build_app(config)


def __getattr__(name: str) -> Any:
    if name == "app":
        return build(BuildArgs())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build_app(config: ServiceConfig) -> serve.Application:
    """The application: text encoder, denoiser and decoder, driven by the dispatcher. `redis.url` must be set."""
    from helios_services.deployments.decoder import DecoderReplica
    from helios_services.deployments.denoiser import DenoiserReplica
    from helios_services.deployments.dispatcher import DispatcherReplica
    from helios_services.deployments.text_encoder import TextEncoderReplica

    text, denoiser, decoder = (
        serve.deployment(replica, name=name, **deployment_options(options)).bind(config)
        for replica, name, options in (
            (TextEncoderReplica, "text-encoder", config.text_encoder),
            (DenoiserReplica, "denoiser", config.denoiser),
            (DecoderReplica, "decoder", config.decoder),
        )
    )
    dispatcher = serve.deployment(DispatcherReplica, name="dispatcher", **deployment_options(config.dispatcher))
    return dispatcher.bind(config, text, denoiser, decoder)


def deployment_options(options: DeploymentConfig) -> dict[str, Any]:
    """Everything Serve can be told about a deployment, from our configuration; nothing is left to its defaults."""
    scaling = options.autoscaling
    resources: dict[str, Any] = {
        "num_cpus": options.num_cpus,
        "num_gpus": options.num_gpus,
        "runtime_env": {"env_vars": ENVIRONMENT},
    }
    if options.accelerator_type:
        resources["accelerator_type"] = options.accelerator_type
    replicas: dict[str, Any] = (
        {"num_replicas": scaling.max_replicas}
        if scaling.min_replicas == scaling.max_replicas
        else {"autoscaling_config": AutoscalingConfig(**scaling.model_dump())}
    )
    return {
        **replicas,
        **replica_placement(options),
        "ray_actor_options": resources,
        "max_ongoing_requests": options.max_ongoing_requests,
        "max_queued_requests": -1,  # the dispatchers' slots bound what can wait
        "graceful_shutdown_timeout_s": options.graceful_shutdown_timeout_s,
        "graceful_shutdown_wait_loop_s": options.graceful_shutdown_wait_loop_s,
        "health_check_period_s": options.health_check_period_s,
        "health_check_timeout_s": options.health_check_timeout_s,
    }
