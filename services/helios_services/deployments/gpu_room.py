"""Whether the GPUs of a machine have room for the replicas: Serve would wait for more without end, and say nothing."""

from collections.abc import Mapping

from helios_services.config import ConfigError, ServiceConfig
from helios_services.deployments.rank_placement import ranks

TYPE = "accelerator_type:"
ROUNDING = 1e-6


def check_gpus(config: ServiceConfig, resources: Mapping[str, float]) -> None:
    """Raises ConfigError if the least number of replicas asks for more GPUs than there are, or for another type.

    resources: as `ray.cluster_resources()` names them.
    """
    sections = {name: getattr(config, name) for name in ("text_encoder", "denoiser", "decoder", "dispatcher")}
    types = sorted(name.removeprefix(TYPE) for name in resources if name.startswith(TYPE))
    for name, section in sections.items():
        if section.accelerator_type and section.accelerator_type not in types:
            raise ConfigError(
                f"{name}.accelerator_type: {section.accelerator_type!r} is not allowed; allowed: empty, or what Ray "
                f"finds on this machine, {types}"
            )
    wanted = {
        name: section.num_gpus * ranks(section) * section.autoscaling.min_replicas
        for name, section in sections.items()
        if section.num_gpus
    }
    there = resources.get("GPU", 0.0)
    if sum(wanted.values()) > there + ROUNDING:
        shares = ", ".join(f"{name} {share:g}" for name, share in wanted.items())
        raise ConfigError(
            f"num_gpus: {sum(wanted.values()):g} in all ({shares}) is not allowed; allowed: at most {there:g}, "
            "which is what Ray finds on this machine (replicas share a GPU by fractions: 0.1, 0.7 and 0.2)"
        )
