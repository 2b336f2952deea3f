"""Noise that is drawn ahead is the noise that would have been drawn, in an unchanged stream of random numbers."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from engine.test_acceleration import model, prompt, request
from helios_engine.configs import SchedulerConfig
from helios_engine.sampling import noise as module
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.noise import VIDEOS_IN_TURN, NoiseAhead, chunk_noise
from helios_engine.sampling.state import DenoiseState

SHAPE, STAGES = (1, 2, 3, 8, 8), 3


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_noise_drawn_ahead_changes_nothing() -> None:
    ahead, ours, plain = NoiseAhead(), seeded(1), seeded(1)
    before = ours.get_state()
    ahead.draw(SHAPE, STAGES, ours)
    assert torch.equal(ours.get_state(), before)
    for _ in range(2):  # what was drawn ahead, and what comes after it
        assert torch.equal(ahead.take(SHAPE, STAGES, ours), chunk_noise(SHAPE, STAGES, plain))
        assert torch.equal(ours.get_state(), plain.get_state())


@pytest.mark.parametrize(
    ("shape", "stages", "seed"), [((1, 2, 3, 8, 16), STAGES, 1), (SHAPE, 1, 1), (SHAPE, STAGES, 2)]
)
def test_another_request_gets_its_own(shape: tuple[int, ...], stages: int, seed: int) -> None:
    ahead = NoiseAhead()
    ahead.draw(SHAPE, STAGES, seeded(1))
    ours, plain = seeded(seed), seeded(seed)
    assert torch.equal(ahead.take(shape, stages, ours), chunk_noise(shape, stages, plain))
    assert torch.equal(ours.get_state(), plain.get_state())


def test_a_bounded_number_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = NoiseAhead()
    for seed in range(VIDEOS_IN_TURN + 1):
        ahead.draw(SHAPE, STAGES, seeded(seed))
    drawn = list[int]()

    def draws(*args: Any) -> torch.Tensor:
        drawn.append(1)
        return chunk_noise(*args)

    monkeypatch.setattr(module, "chunk_noise", draws)
    for seed in reversed(range(VIDEOS_IN_TURN + 1)):
        assert not drawn
        ahead.take(SHAPE, STAGES, seeded(seed))
    assert drawn  # the one that was drawn first


def test_videos_in_turn_find_their_noise_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise of a chunk is drawn between the last forward of the chunk before and the wait for its latents."""
    log = list[str]()

    def draws(*args: Any) -> torch.Tensor:
        log.append("noise")
        return chunk_noise(*args)

    monkeypatch.setattr(module, "chunk_noise", draws)
    denoiser = Denoiser(model(), SchedulerConfig())
    denoiser.transformer.register_forward_pre_hook(lambda *_: log.append("forward"))
    cpu = torch.Tensor.cpu

    def waited(x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 5:  # latents
            log.append("wait")
        return cpu(x)

    monkeypatch.setattr(torch.Tensor, "cpu", waited)
    states = [DenoiseState.initial(replace(request(), seed=seed)) for seed in (1, 2)]
    for drawn_now in (["noise"], []):
        for index, state in enumerate(states):
            log.clear()
            _, states[index] = denoiser.denoise_chunk(state, prompt(index))
            assert log == [*drawn_now, "forward", "forward", "forward", "noise", "wait"]
