"""Joining and leaving the group of processes that run one model together; what a service calls around `Mesh.build`.

One process per device. A service starts as many processes as the mesh has ranks, each of which

1. selects its device (`torch.cuda.set_device`) and calls `init_ranks` with the same address and its own rank,
2. loads the checkpoint and builds `Mesh` and `ParallelTransformer`, then a `Denoiser` on top of that,
3. rank 0: `drive.lead` for each chunk, `link.close` at the end; the others: `drive.follow`, which returns then,
4. calls `leave_ranks`.

What is not sent: noise. Every rank draws it from the state's own generator on the CPU, so all draw the same.

When a rank dies, the others raise in their next exchange: over gloo as soon as the connection is gone, over NCCL after
timeout_s at the latest (its watchdog then ends the process, unless TORCH_NCCL_ASYNC_ERROR_HANDLING says otherwise). A
group that has lost a rank, or in which one rank raised in the middle of a chunk, is of no use any more: end all its
processes and start it again. The chunk's state is still with the caller, so nothing but the chunk's time is lost.
"""

from datetime import timedelta

import torch.distributed as dist

from helios_engine.parallel.mesh import DEFAULT_TIMEOUT_S

BACKENDS = ("gloo", "nccl")


def init_ranks(
    *, rank: int, world_size: int, init_method: str, backend: str, timeout_s: float = DEFAULT_TIMEOUT_S
) -> None:
    """Joins the default process group; returns when all ranks have.

    init_method: where they meet, "tcp://host:port" of rank 0 (give each group a port of its own), or "file:///path" of
    a file that does not exist yet. backend: "nccl" for CUDA tensors, "gloo" for CPU tensors; gloo listens on the
    address of the host's name unless GLOO_SOCKET_IFNAME names an interface. timeout_s: for meeting, and for exchanges
    of the default group. Raises ValueError for a wrong argument, RuntimeError when the others do not come in time.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: {backend!r} is not allowed; allowed: {', '.join(map(repr, BACKENDS))}")
    if not getattr(dist, f"is_{backend}_available")():
        raise ValueError(f"backend: {backend!r} is not in this build of torch; allowed: the other one")
    if world_size < 1:
        raise ValueError(f"world_size: {world_size!r} is not allowed; allowed: an integer from 1")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank: {rank!r} is not allowed; allowed: 0 to {world_size - 1}")
    if not init_method.startswith(("tcp://", "file://")):
        raise ValueError(f"init_method: {init_method!r} is not allowed; allowed: 'tcp://host:port', 'file:///path'")
    if timeout_s <= 0:
        raise ValueError(f"timeout_s: {timeout_s!r} is not allowed; allowed: a positive number")
    timeout = timedelta(seconds=timeout_s)
    try:
        dist.init_process_group(backend, init_method=init_method, rank=rank, world_size=world_size, timeout=timeout)
    except (RuntimeError, TimeoutError) as error:
        raise RuntimeError(f"rank {rank} of {world_size} found no process group at {init_method}: {error}") from error


def leave_ranks() -> None:
    """Leaves the default process group and all groups of meshes; nothing happens without one."""
    if dist.is_initialized():
        dist.destroy_process_group()
