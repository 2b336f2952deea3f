"""What the rank processes run when one of them is to be lost."""

import os
import signal
import threading
import time
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from engine.parallel.tiny import Case, tiny_model, velocities
from helios_engine.configs import SchedulerConfig
from helios_engine.parallel.attend import ParallelAttend
from helios_engine.parallel.degrees import ContextParallel
from helios_engine.parallel.mesh import Mesh
from helios_engine.parallel.transformer import ParallelTransformer
from helios_engine.sampling import drive
from helios_engine.sampling.denoiser import Denoiser


def kill_self() -> None:
    """As the kernel does it when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    """As a bug does it. The process lives on, so its connections stay open."""
    raise ValueError("a bug on one rank")


def forward_with_loss(rank: int, case: Case, loss: str, timeout_s: float) -> None:
    """A forward in which rank 1 is lost in the second block, after a good one."""
    parallel = ContextParallel(ulysses_degree=case.ulysses, ring_degree=case.ring)
    dist.barrier()  # all have imported the engine: what follows is measured by the timeout
    model = ParallelTransformer(tiny_model(case), Mesh.build(parallel, timeout_s=timeout_s))
    velocities(case, model)
    calls = 0

    def losing(self: ParallelAttend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        nonlocal calls
        calls += 1
        if rank == 1 and calls == 2:
            {"kill": kill_self, "raise": fail}[loss]()
        return attend(self, q, k, v)

    attend = ParallelAttend.__call__
    with mock.patch.object(ParallelAttend, "__call__", losing):
        velocities(case, model)


def hang(rank: int) -> None:
    """Waits for ever."""
    threading.Event().wait()


def follow_a_lost_leader(rank: int) -> None:
    """Rank 0 dies while the others wait for work."""
    link = drive.Link()
    dist.barrier()  # all have built it: a rank that is still connecting raises something else
    if rank == 0:
        kill_self()
    drive.follow(link, Denoiser(tiny_model(Case()), SchedulerConfig()))


def send_to_a_stalled_follower(rank: int, timeout_s: float) -> None:
    """Rank 1 lives, but takes nothing; the work is larger than what connections buffer."""
    link = drive.Link(send_timeout_s=timeout_s)
    if rank == 0:
        link.send({"work": torch.zeros(32 << 20)})
    time.sleep(2 * timeout_s)
