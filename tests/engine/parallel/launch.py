"""A group of rank processes over gloo on this machine, kept for many calls, as starting it takes seconds.

Ranks import as little as the engine does; functions for them live in importable modules (`engine.parallel.*`).
"""

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

EXCHANGE_TIMEOUT_S = 120.0
"""Also the time in which all ranks must have met: each imports torch first."""


@dataclass(frozen=True)
class Failure:
    """What a rank raised, as text, or how it ended."""

    text: str


class Ranks:
    """`world_size` processes in one default process group. Closing ends them all, whatever they are doing."""

    def __init__(self, world_size: int, folder: Path, *, call_timeout_s: float = 240.0) -> None:
        self.world_size, self._call_timeout_s = world_size, call_timeout_s
        context = multiprocessing.get_context("spawn")
        meeting = f"file://{folder}/meeting"
        self._connections: list[Connection] = []
        self._processes = []
        for rank in range(world_size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, world_size, meeting, theirs), daemon=True)
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)

    def outcomes(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """function(rank, *args) on every rank at once: its result or a Failure for each.

        Ranks that do not answer within call_timeout_s are ended, TimeoutError.
        """
        deadline = time.monotonic() + self._call_timeout_s
        for connection in self._connections:
            connection.send((function, args))
        outcomes = []
        for rank, connection in enumerate(self._connections):
            if not connection.poll(max(0.0, deadline - time.monotonic())):
                self.close()
                raise TimeoutError(f"rank {rank} of {self.world_size} hangs in {function.__name__}{args!r}")
            try:
                outcomes.append(connection.recv())
            except (EOFError, ConnectionResetError):
                self._processes[rank].join(60)
                outcomes.append(Failure(f"ended with exit code {self._processes[rank].exitcode}"))
        return outcomes

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """As `outcomes`; raises AssertionError if a rank failed."""
        outcomes = self.outcomes(function, *args)
        failures = [f"rank {rank}: {o.text}" for rank, o in enumerate(outcomes) if isinstance(o, Failure)]
        assert not failures, "\n".join(failures)
        return outcomes

    def close(self) -> None:
        """Ends all processes and waits for them."""
        for process in self._processes:
            process.kill()  # nothing of theirs is worth keeping
        for process, connection in zip(self._processes, self._connections, strict=True):
            process.join(60)
            connection.close()
        assert not self.alive()

    def alive(self) -> int:
        """How many of the processes run."""
        return sum(process.is_alive() for process in self._processes)


def _serve(rank: int, world_size: int, meeting: str, connection: Connection) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch

    from helios_engine.parallel.ranks import init_ranks

    torch.set_num_threads(1)
    init_ranks(rank=rank, world_size=world_size, init_method=meeting, backend="gloo", timeout_s=EXCHANGE_TIMEOUT_S)
    while True:
        try:
            function, args = connection.recv()
        except EOFError:  # the test process is gone
            return
        try:
            outcome = function(rank, *args)
        except Exception:
            outcome = Failure(traceback.format_exc())
        connection.send(outcome)
