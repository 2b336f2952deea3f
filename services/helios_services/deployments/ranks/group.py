"""The leader of a denoiser replica that spans several devices: starts the other ranks, leads them, ends with them.

A group that has lost a rank is of no use any more, and its survivors may hang in an exchange. So the leader's process
ends at once, and everything else follows from that: the dispatcher hears that its call was lost and repeats it with the
same state; Ray ends the followers, whose owner is gone; Serve starts a new replica in a new placement group.
"""

import concurrent.futures
import os
import sys
from functools import partial
from typing import Any, NoReturn

import ray
import structlog
import torch

from helios_engine.errors import InvalidField
from helios_engine.parallel.ranks import leave_ranks
from helios_engine.sampling import drive
from helios_engine.sampling.state import DenoiseState
from helios_services.config import ServiceConfig
from helios_services.deployments.ranks.follower import Follower
from helios_services.deployments.ranks.link import Meeting, degrees, join
from helios_services.deployments.ranks.placement import follower_options
from helios_services.deployments.replicas.load_denoiser import load_denoiser

log = structlog.get_logger(__name__)
CLOSE_TIMEOUT_S = 5.0


class RankGroup:
    """Rank 0 and its followers; is called like a Denoiser, from one thread at a time.

    Creating it takes as long as loading the checkpoint. Raises what loading raises on any rank, and ValueError if the
    mesh does not fit the model; after that a failure of any rank ends this process.
    """

    def __init__(self, config: ServiceConfig, device: torch.device) -> None:
        self._closing = False
        actor, options = ray.remote(Follower), config.denoiser
        self._followers = [
            actor.options(**follower_options(options, rank)).remote(config, rank)
            for rank in range(1, options.parallel.world_size)
        ]
        # futures instead of ray.get, which is not meant for a replica: its actor is asynchronous
        loading = [follower.prepare.remote().future() for follower in self._followers]
        self._denoiser = load_denoiser(config, device)
        for loaded in loading:
            loaded.result()
        degrees(options.parallel).check_heads(self._denoiser.transformer.config.num_attention_heads)
        meeting = Meeting(options.parallel)
        self._following = [follower.follow.remote(meeting.address).future() for follower in self._followers]
        for rank, following in enumerate(self._following, start=1):
            following.add_done_callback(partial(self._follower_ended, rank))
        self._link = join(self._denoiser, options.parallel, rank=0, address=meeting.address)

    def denoise_chunk(
        self, state: DenoiseState, prompt_embeds: torch.Tensor, negative_prompt_embeds: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, DenoiseState]:
        """`Denoiser.denoise_chunk` on all ranks. Raises InvalidField; any other error ends the process."""
        embeds = (prompt_embeds,) if negative_prompt_embeds is None else (prompt_embeds, negative_prompt_embeds)
        try:
            return drive.lead(self._link, self._denoiser, state, *embeds)
        except InvalidField:
            raise
        except Exception as error:
            _end_process(rank=0, error=error)

    def close(self) -> None:
        """Lets the followers end, and waits for them a while; those that hang end with this process."""
        self._closing = True
        self._link.close()
        leave_ranks()
        concurrent.futures.wait(self._following, timeout=CLOSE_TIMEOUT_S)

    def _follower_ended(self, rank: int, following: "concurrent.futures.Future[Any]") -> None:
        """Called by Ray as soon as a follower has died or raised, also while the leader waits in an exchange."""
        if not self._closing:
            _end_process(rank=rank, error=following.exception())


def _end_process(*, rank: int, error: BaseException | None) -> NoReturn:
    """Not by an exception: one that reached the caller would read as the chunk's own fault."""
    log.error("rank_group_lost", rank=rank, exc_info=error)
    sys.stderr.flush()
    os._exit(1)
