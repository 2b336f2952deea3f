"""The Ray Serve application.

Import paths: `helios_services.deployments.app:build` takes arguments (`serve run`, `serve deploy`, RayService);
`helios_services.deployments.app:app` is configured by the environment alone, as `serve build` wants it.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from helios_services.config import ConfigError, DeploymentConfig, RedisConfig, ServiceConfig, load_config
from helios_services.deployments.ranks.placement import node_resources, replica_placement

ENVIRONMENT = {
    # tensors are read in place from the object store; nothing here writes to a tensor it received
    "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
COLD_START_LOOK_BACK_S = 15.0
"""Serve starts a replica of a deployment without one if there were calls within this time. It wants more than 10."""

MAX_CONSTRUCTOR_RETRIES = 1_000_000
"""So high that Serve's other bound decides: RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT tries of each replica.

Unset that is 3: on one machine a start that fails ends soon, with the reason. Clusters set it high: nobody waits for
the reason there, and a volume that was away for a while is no reason to give up."""


class BuildArgs(BaseModel):
    """Arguments of `build`: a configuration file; unset, HELIOS_CONFIG and the environment decide."""

    model_config = ConfigDict(extra="forbid")

    config: str | None = None


def build(args: BuildArgs) -> serve.Application:
    """The application for a configuration file. Raises ConfigError, also when the checkpoint is not named.

    Without `redis.url` each dispatcher takes the job store from the environment of its own node.
    """
    config = load_config(args.config)
    if not config.model.checkpoint:
        raise ConfigError("model.checkpoint: is empty; it must be set to deploy on a cluster")
    return build_app(config)


def __getattr__(name: str) -> Any:
    if name == "app":
        return build(BuildArgs())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build_app(config: ServiceConfig) -> serve.Application:
    """The application: text encoder, denoiser and decoder, driven by the dispatcher."""
    # late, for they bring the model: options and arguments are also read where there is no torch
    from helios_services.deployments.ranks.replica import RankedDenoiserReplica
    from helios_services.deployments.replicas.decoder import DecoderReplica
    from helios_services.deployments.replicas.denoiser import DenoiserReplica
    from helios_services.deployments.replicas.dispatcher import DispatcherReplica
    from helios_services.deployments.replicas.text_encoder import TextEncoderReplica

    slots, alone = config.dispatcher.slots, config.denoiser.parallel.world_size == 1
    keyless = config.model_copy(update={"redis": RedisConfig()})  # only dispatchers need the job store
    text, denoiser, decoder = (
        serve.deployment(replica, name=name, **deployment_options(options, work_policy(name, options, slots))).bind(
            keyless
        )
        for replica, name, options in (
            (TextEncoderReplica, "text-encoder", config.text_encoder),
            (DenoiserReplica if alone else RankedDenoiserReplica, "denoiser", config.denoiser),
            (DecoderReplica, "decoder", config.decoder),
        )
    )
    dispatcher = serve.deployment(DispatcherReplica, name="dispatcher", **deployment_options(config.dispatcher))
    return dispatcher.bind(config, text, denoiser, decoder)


def work_policy(deployment: str, options: DeploymentConfig, slots: int) -> AutoscalingPolicy | None:
    """How Serve is to scale the deployment; None for a fixed number. slots: jobs that are driven at a time."""
    scaling = options.autoscaling
    if scaling.fixed:
        return None
    return AutoscalingPolicy(
        policy_function="helios_services.deployments.autoscaling.policy:WorkPolicy",
        policy_kwargs={  # Serve logs and shows them
            "deployment": deployment,
            "slots": slots,
            "downscale_delay_s": scaling.downscale_delay_s,
            "backlog_target_s": scaling.backlog_target_s,
            "live_utilization": scaling.live_utilization,
            "assumed_chunk_s": scaling.assumed_chunk_s,
        },
    )


def deployment_options(options: DeploymentConfig, policy: AutoscalingPolicy | None = None) -> dict[str, Any]:
    """Everything Serve can be told about a deployment, from our configuration; nothing is left to its defaults."""
    scaling = options.autoscaling
    resources: dict[str, Any] = {
        "num_cpus": options.num_cpus,
        "num_gpus": options.gpu_share,
        "resources": node_resources(options),
        "runtime_env": {"env_vars": ENVIRONMENT},
    }
    if options.accelerator_type:
        resources["accelerator_type"] = options.accelerator_type
    replicas: dict[str, Any] = {"num_replicas": scaling.most}
    if policy is not None:
        replicas = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=scaling.least,
                max_replicas=scaling.most,
                upscale_delay_s=scaling.upscale_delay_s,
                downscale_delay_s=0.0,  # the policy's own: see work_policy
                look_back_period_s=COLD_START_LOOK_BACK_S,
                policy=policy,
            )
        }
    return {
        **replicas,
        **replica_placement(options),
        "ray_actor_options": resources,
        "max_ongoing_requests": options.max_ongoing_requests,
        "max_constructor_retry_count": MAX_CONSTRUCTOR_RETRIES,
        "max_queued_requests": -1,  # the dispatchers' slots bound what can wait
        "graceful_shutdown_timeout_s": options.graceful_shutdown_timeout_s,
        "graceful_shutdown_wait_loop_s": options.graceful_shutdown_wait_loop_s,
        "health_check_period_s": options.health_check_period_s,
        "health_check_timeout_s": options.health_check_timeout_s,
    }
