"""Two chunks of a video on the ranks: rank 0 leads."""

from typing import cast

import torch

from engine.parallel.tiny import TEXT_DIM, TEXT_TOKENS, Case, tiny_model
from helios_engine.configs import SchedulerConfig
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.parallel.degrees import ContextParallel
from helios_engine.parallel.mesh import Mesh
from helios_engine.parallel.transformer import ParallelTransformer
from helios_engine.request import GenerationRequest
from helios_engine.sampling import drive
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState

CHUNKS = 2


def start() -> tuple[DenoiseState, torch.Tensor]:
    """The state before the first chunk, and prompt embeddings."""
    request = GenerationRequest(prompt="a lake", height=64, width=64, seed=3, pyramid_steps=(1, 2, 1))
    embeds = torch.randn(1, TEXT_TOKENS, TEXT_DIM, generator=torch.Generator().manual_seed(8))
    return DenoiseState.initial(request), embeds


def lead_or_follow(rank: int, case: Case) -> bytes | None:
    """Rank 0: the state after the last chunk."""
    mesh = Mesh.build(ContextParallel(ulysses_degree=case.ulysses, ring_degree=case.ring), timeout_s=120)
    parallel = ParallelTransformer(tiny_model(case), mesh)
    denoiser = Denoiser(cast(HeliosTransformer, parallel), SchedulerConfig())
    link = drive.Link(idle_timeout_s=120)
    if rank > 0:
        drive.follow(link, denoiser)
        return None
    state, embeds = start()
    for _ in range(CHUNKS):
        _, state = drive.lead(link, denoiser, state, embeds)
    link.close()
    return state.to_bytes()
