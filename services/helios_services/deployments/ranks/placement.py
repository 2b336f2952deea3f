"""Where the ranks of a denoiser replica run: one placement group per replica, bundle k for rank k.

Why not Serve's gang scheduling (`GangSchedulingConfig`, alpha in Ray 2.60): the members of a gang are replicas with
equal rights, and the router hands requests to any of them, whereas only rank 0 may be called here; gangs are placed
with PACK or SPREAD, not STRICT_PACK; and that a member has died shows in health checks, seconds later. Of a group made
with `placement_group_bundles` Serve counts the resources, creates it with the replica and removes it with it; and what
still runs in a placement group that is removed is killed.
"""

from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from helios_services.config import DenoiserConfig, DeploymentConfig

NODE_SHARE = 0.001
"""What is asked for of a resource that says what a node is: any number of actors has room. Ray asks for as much of the
one that stands for a type of accelerator."""


def ranks(options: DeploymentConfig) -> int:
    """Processes that one replica of the deployment consists of."""
    return options.parallel.world_size if isinstance(options, DenoiserConfig) else 1


def node_resources(options: DeploymentConfig) -> dict[str, float]:
    """Custom resources that each process of the deployment asks for."""
    return {options.node_resource: NODE_SHARE} if options.node_resource else {}


def replica_placement(options: DeploymentConfig) -> dict[str, Any]:
    """Options of the Serve deployment that reserve the resources of all ranks at once; none for a lone process."""
    if not isinstance(options, DenoiserConfig) or options.parallel.world_size == 1:
        return {}
    bundle = {"CPU": options.num_cpus, "GPU": options.gpu_share, **node_resources(options)}
    if options.accelerator_type:
        bundle[f"accelerator_type:{options.accelerator_type}"] = NODE_SHARE
    return {
        "placement_group_bundles": [
            {name: amount for name, amount in bundle.items() if amount} for _ in range(options.parallel.world_size)
        ],
        "placement_group_strategy": options.parallel.placement,
    }


def follower_options(options: DenoiserConfig, rank: int) -> dict[str, Any]:
    """Options of the actor that is this rank, in the calling replica's placement group.

    The replica's placement group captures its child actors anyway, but in any bundle; ranks of a Ulysses group are to
    be neighbours. Not detached, so that it ends with the replica; not restarted, as it would come back to no group.
    """
    group = ray.util.get_current_placement_group()
    assert group is not None, "the replica runs in no placement group"
    placed: dict[str, Any] = {
        "num_cpus": options.num_cpus,
        "num_gpus": options.gpu_share,
        "resources": node_resources(options),
        "max_restarts": 0,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(
            placement_group=group, placement_group_bundle_index=rank
        ),
    }
    if options.accelerator_type:
        placed["accelerator_type"] = options.accelerator_type
    return placed
