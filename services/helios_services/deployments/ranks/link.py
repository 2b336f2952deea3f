"""How a rank joins its group, leader and follower alike, and where they meet."""

import os
import socket

import ray
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not in __all__

from helios_engine.model.transformer import HeliosTransformer
from helios_engine.parallel.degrees import ContextParallel
from helios_engine.parallel.mesh import Mesh
from helios_engine.parallel.ranks import init_ranks
from helios_engine.parallel.transformer import ParallelTransformer
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.drive import Link
from helios_services.config import ParallelConfig

LOOPBACK = "127.0.0.1"


class Meeting:
    """The leader's store, listening before anyone is told: no other program can take the port in between.

    Keep this until all ranks have joined; the process group keeps what it needs of it.
    """

    def __init__(self, parallel: ParallelConfig) -> None:
        # a group on one node need not be reachable from outside: nobody has to prove who they are to torch's store
        self.host = LOOPBACK if parallel.placement == "STRICT_PACK" else str(ray.util.get_node_ip_address())
        listening = socket.create_server((self.host, 0))
        self.port = int(listening.getsockname()[1])
        self._store = TCPStore(
            self.host,
            self.port,
            is_master=True,
            wait_for_workers=False,
            multi_tenant=True,  # init_ranks in this process finds this store instead of making another
            master_listen_fd=listening.detach(),
        )

    @property
    def address(self) -> str:
        """What `init_ranks` takes."""
        return f"tcp://{self.host}:{self.port}"


def degrees(parallel: ParallelConfig) -> ContextParallel:
    """The engine's description of the mesh."""
    return ContextParallel(
        ulysses_degree=parallel.ulysses_degree, ring_degree=parallel.ring_degree, cfg_degree=parallel.cfg_degree
    )


def backend(device: torch.device) -> str:
    """The library that exchanges tensors of this device."""
    return "nccl" if device.type == "cuda" else "gloo"


def join(denoiser: Denoiser, parallel: ParallelConfig, *, rank: int, address: str) -> Link:
    """Joins the group and spreads the denoiser over it; all ranks call this once, after loading.

    Raises RuntimeError when the others do not come within timeout_s.
    """
    device = denoiser.device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    keep_on_loopback(address)
    init_ranks(
        rank=rank,
        world_size=parallel.world_size,
        init_method=address,
        backend=backend(device),
        timeout_s=parallel.timeout_s,
    )
    mesh = Mesh.build(degrees(parallel), timeout_s=parallel.timeout_s)
    assert isinstance(denoiser.transformer, HeliosTransformer)
    denoiser.transformer = ParallelTransformer(denoiser.transformer, mesh)
    if parallel.cfg_degree > 1:
        denoiser.guidance_batching = "always"  # of the batch of two passes a rank runs one, so memory is no question
    return Link(send_timeout_s=parallel.timeout_s)


def keep_on_loopback(address: str) -> None:
    """Ranks that meet on loopback exchange there too: the libraries would listen on an address of the network."""
    if address.startswith(f"tcp://{LOOPBACK}:"):
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", _loopback_interface())


def _loopback_interface() -> str:
    """ "lo" on Linux, "lo0" on macOS."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
