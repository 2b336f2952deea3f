"""Ray on one machine: every listener on loopback, every file below a private folder.

Ray takes the machine's network address for a node that is told to be 127.0.0.1, unless it was told that there are to be
no clusters (its setting for Windows and macOS); then its servers listen on loopback. Serve's replicas have a server of
their own, which takes no setting.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray._private import ray_constants

from helios_services.config import ConfigError
from helios_services.private_files import SOCKET_PATH_BYTES, short_private_folder

LOOPBACK = "127.0.0.1"
LONGEST_SOCKET = "/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""Below the private folder, with the largest process id."""


@contextmanager
def ray_folder(state_dir: Path) -> Iterator[Path]:
    """Ray's sockets and logs: in a private folder with a short path, to which `ray` in the state folder links.

    Removed at the end; kept after an error, for the logs in it.
    """
    private = short_private_folder("helios-ray-", SOCKET_PATH_BYTES - len(LONGEST_SOCKET))
    link = state_dir / "ray"
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    link.unlink(missing_ok=True)
    ours = private / "r"  # Ray opens its own folder to everybody
    link.symlink_to(ours)
    yield ours
    shutil.rmtree(private, ignore_errors=True)
    link.unlink(missing_ok=True)


def stay_on_loopback() -> None:
    """To be called before `ray.init`: the node's address is 127.0.0.1, for this process and Ray's."""
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False  # as if Ray were imported only now


def check_on_loopback() -> None:
    """To be called after `ray.init`. Raises ConfigError if Ray took another address."""
    addresses = {node["NodeManagerAddress"] for node in ray.nodes()}
    if addresses != {LOOPBACK}:
        raise ConfigError(f"ray: listens on {', '.join(sorted(addresses))}, beyond loopback; Ray 2.60 does not")


def keep_replica_on_loopback() -> None:
    """To be called when a replica is made: Serve then starts the replica's gRPC server, on all interfaces.

    Does nothing where the node is not on loopback: replicas of other machines call there.
    """
    if ray.util.get_node_ip_address() != LOOPBACK:
        return
    from ray.serve._private import replica

    add_port = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, _: add_port(server, f"{LOOPBACK}:0")
