"""Copies from a GPU, with stand-ins for it: page-locked, not waited for one by one, and complete on return."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from helios_engine.ops.transfer import to_host

GPU = torch.device("cuda", 3)


class OnGpu(torch.Tensor):
    """Says that it is on a GPU."""

    device = GPU


class Late(torch.Tensor):
    """Host memory whose copies are made when an event that was recorded after them has come."""

    pending: list[Callable[[], object]]

    def copy_(self, source: torch.Tensor, non_blocking: bool = False) -> "Late":
        assert non_blocking
        self.pending.append(lambda: torch.Tensor.copy_(self, source.as_subclass(torch.Tensor)))
        return self


class Event:
    """An event of the stream that it was recorded in."""

    def __init__(self, pending: list[Callable[[], object]], blocking: bool) -> None:
        self.pending, self.blocking = pending, blocking
        self.after: list[Callable[[], object]] = []

    def record(self, stream: torch.device) -> None:
        if stream == GPU:
            self.after = list(self.pending)

    def synchronize(self) -> None:
        assert self.blocking  # the thread sleeps: H.264 has its core
        for copy in self.after:
            copy()


def test_all_of_it_is_there_on_return(monkeypatch: pytest.MonkeyPatch) -> None:
    pending: list[Callable[[], object]] = []
    pinned: list[bool] = []
    empty = torch.empty

    def allocate(shape: Any, *, dtype: torch.dtype, pin_memory: bool) -> torch.Tensor:
        pinned.append(pin_memory)
        memory = empty(shape, dtype=dtype).zero_().as_subclass(Late)
        memory.pending = pending
        return memory

    monkeypatch.setattr(torch, "empty", allocate)
    monkeypatch.setattr(torch.cuda, "Event", lambda blocking=False: Event(pending, blocking))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)
    frames = torch.arange(24, dtype=torch.uint8).view(2, 3, 4)
    host = to_host(frames.as_subclass(OnGpu)).as_subclass(torch.Tensor)
    assert host.tolist() == frames.tolist()
    assert pinned == [True]


def test_what_is_in_host_memory_stays_there() -> None:
    frames = torch.ones(2, 3)
    assert to_host(frames) is frames
