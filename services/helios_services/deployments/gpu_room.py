"""Whether a machine has what the replicas ask for: Serve would wait for more without end, and say nothing."""

from collections.abc import Mapping

from helios_services.config import ConfigError, ServiceConfig
from helios_services.planning.layout import ROUNDING, check_shares

TYPE = "accelerator_type:"


def check_gpus(config: ServiceConfig, resources: Mapping[str, float]) -> None:
    """Raises ConfigError if the least number of replicas asks for more GPUs than there are, for another type, or for a
    group of nodes.

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
        if section.node_resource:
            raise ConfigError(
                f"{name}.node_resource: {section.node_resource!r} is not allowed on this machine; allowed: empty (it "
                "chooses among the nodes of a cluster)"
            )
    check_shares(config, int(resources.get("GPU", 0.0) + ROUNDING))
