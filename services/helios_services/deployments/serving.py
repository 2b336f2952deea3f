"""Runs the application: on a Ray cluster that is there, or on one started for this process."""

import logging
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import ray
from ray import serve

from helios_engine.loading.check import check_checkpoint
from helios_engine.planning.machine import this_machine
from helios_services.config import ConfigError, ServiceConfig, with_variant
from helios_services.deployments.adapters import check_adapters
from helios_services.deployments.app import ENVIRONMENT, build_app
from helios_services.deployments.failure import why_not_running
from helios_services.deployments.gpu_room import check_gpus
from helios_services.deployments.local_ray import lost_ray, watched_ray
from helios_services.deployments.ranks.placement import ranks
from helios_services.deployments.ray_loopback import LOOPBACK, check_on_loopback, ray_folder, stay_on_loopback
from helios_services.deployments.ray_token import authenticate_ray, check_authenticated
from helios_services.planning.plan import Plan, check_for_cluster, needs_of, plan
from helios_services.private_files import private_umask
from helios_services.processes.keeper import OnLost, unheeded

APP_NAME = "helios"
RAY_STARTS = 3
"""Ray gives its node 30 s, whatever else the machine is doing."""
LOCAL_OBJECT_STORE_BYTES = 1 << 30
SHARED_GPU = ("PYTORCH_ALLOC_CONF", "expandable_segments:True")
"""Memory that a replica has freed serves it again in any size: replicas on one GPU hold less that nobody uses."""
DEPRECATED_NAME = "PYTORCH_CUDA_ALLOC_CONF"


def settled(
    config: ServiceConfig, *, on_cluster: bool = False, tell: Callable[[Plan], None] = lambda plan: None
) -> ServiceConfig:
    """The configuration with what the checkpoint says of the model, and with what was left to this machine filled in.

    Checkpoint and adapters are checked. on_cluster: the machines are those of a Ray cluster, which nobody has looked
    at: no plan is made. tell: is told of the plan. Raises CheckpointError and ConfigError.
    """
    if not config.model.checkpoint:
        raise ConfigError(
            "model.checkpoint: is empty; allowed: a checkpoint folder or Hub id (--checkpoint or "
            "HELIOS_MODEL__CHECKPOINT; `helios tiny DIR` writes one for trying things out)"
        )
    config = with_variant(config, check_checkpoint(config.model.checkpoint).variant)
    check_adapters(config)
    needs = needs_of(config)
    if on_cluster:
        check_for_cluster(config, needs)
        return config
    found = plan(config, needs, this_machine())
    tell(found)
    return found.config


@contextmanager
def serving(config: ServiceConfig, *, address: str | None = None, on_lost: OnLost = unheeded) -> Iterator[None]:
    """Deploys the application and waits until all replicas run; takes it down on exit.

    config: as `settled` gave it. address: of a Ray cluster; None starts Ray in this process, on loopback. on_lost: is
    told if that Ray ends. Raises ConfigError if a replica does not start, with its reason, or if this machine has not
    the GPUs that the replicas ask for.
    """
    os.environ.update(ENVIRONMENT)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with ExitStack() as cleanup:
        if address is None:
            cleanup.enter_context(private_umask())
            folder = cleanup.enter_context(ray_folder(config.state_dir))
            cleanup.callback(_disconnect)
            _start(config, folder)
            cleanup.enter_context(watched_ray(on_lost))
        else:
            cleanup.callback(ray.shutdown)
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        serve.start(proxy_location="Disabled")
        cleanup.callback(_delete)
        try:
            serve.run(build_app(config), name=APP_NAME, route_prefix=None)
        except RuntimeError as error:
            raise ConfigError(why_not_running(APP_NAME) or str(error)) from None
        yield


def _delete() -> None:
    """Drains the replicas; a shared cluster's other applications stay. A Ray that ends meanwhile is not waited for."""
    deleting = threading.Thread(target=serve.delete, args=(APP_NAME,), name="serve-delete", daemon=True)
    deleting.start()
    while deleting.is_alive() and not lost_ray():
        deleting.join(0.1)


def _disconnect() -> None:
    """Leaves the cluster, and ends it if it was started here. What has ended already would not answer for a minute."""
    if not lost_ray():
        ray.shutdown()


def _start(config: ServiceConfig, folder: Path) -> None:
    authenticate_ray()
    stay_on_loopback()
    if DEPRECATED_NAME not in os.environ:
        os.environ.setdefault(*SHARED_GPU)  # reaches the replicas: Ray's processes are this one's descendants
    sections = (config.dispatcher, config.text_encoder, config.denoiser, config.decoder)
    wanted = sum(section.num_cpus * ranks(section) * section.autoscaling.most for section in sections)
    options = {
        "address": "local",  # never a cluster that happens to run on this machine: Ray would look for one
        "num_cpus": max(os.cpu_count() or 1, math.ceil(wanted)),  # Ray's CPUs are a count of its own
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.WARNING,
        "object_store_memory": LOCAL_OBJECT_STORE_BYTES,
        "_node_ip_address": LOOPBACK,
        "_temp_dir": str(folder),
    }
    for left in reversed(range(RAY_STARTS)):
        try:
            ray.init(**options)
            break
        except Exception as error:  # Ray has no kind of its own for this
            if not left or "timed out during startup" not in str(error):
                raise
            ray.shutdown()
    check_authenticated()
    check_on_loopback()
    check_gpus(config, ray.cluster_resources())
