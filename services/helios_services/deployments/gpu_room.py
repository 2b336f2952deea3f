"""Whether a machine has what the replicas ask for: Serve would wait for more without end, and say nothing."""

from collections.abc import Iterable, Mapping

from helios_services.config import ConfigError, ServiceConfig
from helios_services.deployments.ranks.placement import ranks

TYPE = "accelerator_type:"
ROUNDING = 1e-6


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
    processes = {name: ranks(section) * section.autoscaling.min_replicas for name, section in sections.items()}
    shares = [section.num_gpus for name, section in sections.items() for _ in range(processes[name])]
    there = resources.get("GPU", 0.0)
    if not fits(shares, int(there + ROUNDING)):
        wanted = ", ".join(
            f"{name} {processes[name]} x {section.num_gpus:g}" for name, section in sections.items() if section.num_gpus
        )
        raise ConfigError(
            f"num_gpus: {sum(shares):g} in all ({wanted}) is not allowed; allowed: what fits {there:g} GPUs, which is "
            "what Ray finds on this machine (a share lies on one GPU; replicas share it by fractions: 0.1, 0.7 and 0.2)"
        )


def fits(shares: Iterable[float], gpus: int) -> bool:
    """Whether each share finds room on one GPU: the largest first, each on the first GPU that has it."""
    free = [1.0] * gpus
    for share in sorted(filter(None, shares), reverse=True):
        room = next((index for index, left in enumerate(free) if left + ROUNDING >= share), None)
        if room is None:
            return False
        free[room] -= share
    return True
