"""A denoiser on several ranks, led by rank 0, makes the video that one device makes."""

from collections.abc import Callable

import pytest
import torch

from engine.parallel.chunks import CHUNKS, lead_or_follow, start
from engine.parallel.launch import Ranks
from engine.parallel.tiny import Case, relative_error, tiny_model
from helios_engine.configs import SchedulerConfig
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState


@pytest.mark.parametrize("case", [Case(ulysses=2, heads=3), Case(ulysses=2, ring=2)], ids=["two", "four"])
def test_chunks_of_the_led_ranks(ranks: Callable[[int], Ranks], case: Case) -> None:
    led, *followers = ranks(case.ulysses * case.ring).run(lead_or_follow, case)
    assert followers == [None] * len(followers)

    denoiser = Denoiser(tiny_model(case), SchedulerConfig())
    expected, embeds = start()
    for _ in range(CHUNKS):
        _, expected = denoiser.denoise_chunk(expected, embeds)
    actual = DenoiseState.from_bytes(led)
    assert actual.chunk_index == expected.chunk_index == CHUNKS
    assert torch.equal(actual.rng_state, expected.rng_state)
    assert relative_error(actual.history, expected.history) < 1e-5
    assert relative_error(actual.anchor, expected.anchor) < 1e-5
