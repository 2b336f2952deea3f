"""Rank 0 leads, the followers repeat each of its calls, for the exchanges inside need all ranks."""

import contextlib
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from safetensors.torch import load, save

from helios_engine.errors import InvalidField
from helios_engine.parallel.mesh import DEFAULT_TIMEOUT_S
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState

IDLE_TIMEOUT_S = 7 * 86_400.0
"""How long followers wait for work. A leader that dies ends their wait at once: its connections close."""

STATE = "state"


class Link:
    """Carries the leader's calls to the followers, as named CPU tensors (safetensors, no pickle).

    A group of its own over gloo, whatever the mesh runs on: an idle follower waits in it for as long as idle_timeout_s,
    far beyond the mesh's own timeout. send_timeout_s: how long the leader waits for one that takes no work. All ranks
    build it, at the same place among their other groups.
    """

    def __init__(self, *, idle_timeout_s: float = IDLE_TIMEOUT_S, send_timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=idle_timeout_s))
        self._send_timeout = timedelta(seconds=send_timeout_s)

    def send(self, work: Mapping[str, torch.Tensor]) -> None:
        """Rank 0: gives this to all followers. Raises RuntimeError if one has gone or takes nothing."""
        self._send(save({name: tensor.detach().cpu().contiguous() for name, tensor in work.items()}))

    def close(self) -> None:
        """Rank 0: there is no more work; `receive` returns None."""
        self._send(b"")

    def receive(self) -> dict[str, torch.Tensor] | None:
        """A follower: waits for work. None when the leader has closed. Raises RuntimeError if it has gone."""
        size = torch.zeros(1, dtype=torch.int64)
        dist.broadcast(size, src=0, group=self._group)
        if not size.item():
            return None
        data = torch.empty(int(size.item()), dtype=torch.uint8)
        dist.broadcast(data, src=0, group=self._group)
        work: dict[str, torch.Tensor] = load(data.numpy().tobytes())
        return work

    def _send(self, data: bytes) -> None:
        self._broadcast(torch.tensor([len(data)]))
        if data:
            self._broadcast(torch.frombuffer(bytearray(data), dtype=torch.uint8))

    def _broadcast(self, tensor: torch.Tensor) -> None:
        work = dist.broadcast(tensor, src=0, group=self._group, async_op=True)
        assert work is not None
        work.wait(self._send_timeout)


def lead(
    link: Link, denoiser: Denoiser, state: DenoiseState, *embeds: torch.Tensor
) -> tuple[torch.Tensor, DenoiseState]:
    """Rank 0: `denoiser.denoise_chunk(state, *embeds)` on all ranks; returns what it does.

    After an error, end the group: the followers have raised too, or wait in an exchange. Except after InvalidField: all
    ranks raise that alike, before any exchange, and the followers go on.
    """
    state_bytes = torch.frombuffer(bytearray(state.to_bytes()), dtype=torch.uint8)
    link.send({STATE: state_bytes} | {str(index): embed for index, embed in enumerate(embeds)})
    return denoiser.denoise_chunk(state, *embeds)


def follow(link: Link, denoiser: Denoiser) -> None:
    """The other ranks: repeats the leader's calls until it closes the link."""
    while (work := link.receive()) is not None:
        state = DenoiseState.from_bytes(work.pop(STATE).numpy().tobytes())
        with contextlib.suppress(InvalidField):  # the leader raises the same one to its caller
            denoiser.denoise_chunk(state, *(work[str(index)] for index in range(len(work))))
