"""The sampling state: initial values, advance, and serialisation without loss."""

import pickle

import pytest
import torch
from safetensors.torch import load, save

from helios_engine.request import GenerationRequest
from helios_engine.sampling.state import DenoiseState

REQUEST = GenerationRequest(prompt="Über café ☕", height=64, width=128, num_frames=99, seed=5, pyramid_steps=(1, 2, 3))


def advanced_twice() -> DenoiseState:
    state = DenoiseState.initial(REQUEST)
    for _ in range(2):
        generator = state.generator()
        state = state.advanced(torch.randn(1, 16, 9, 8, 16, generator=generator), generator)
    return state


def test_bytes_round_trip_is_exact() -> None:
    state = advanced_twice()
    restored = DenoiseState.from_bytes(state.to_bytes())
    assert (restored.request, restored.chunk_index) == (state.request, 2)
    for name in ("history", "anchor", "rng_state"):
        assert torch.equal(getattr(restored, name), getattr(state, name)), name
    assert torch.equal(torch.randn(4, generator=restored.generator()), torch.randn(4, generator=state.generator()))


def test_bytes_are_no_pickle_and_other_formats_are_refused() -> None:
    data = DenoiseState.initial(REQUEST).to_bytes()
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(data)
    tensors = load(data)
    header = tensors["header"].numpy().tobytes().replace(b'"format": 2', b'"format": 9')
    tensors["header"] = torch.frombuffer(bytearray(header), dtype=torch.uint8)
    with pytest.raises(ValueError, match="its format is not allowed"):
        DenoiseState.from_bytes(save(tensors))


def test_history_keeps_the_last_19_frames_and_the_anchor_the_first() -> None:
    state = DenoiseState.initial(REQUEST)
    assert state.history.shape == (1, 16, 19, 8, 16)
    assert not state.history.any()
    generator = state.generator()
    chunks = [torch.randn(1, 16, 9, 8, 16, generator=generator) for _ in range(3)]
    for chunk in chunks:
        state = state.advanced(chunk, generator)
    assert torch.equal(state.history, torch.cat(chunks, dim=2)[:, :, -19:])
    assert torch.equal(state.anchor, chunks[0][:, :, :1])


def test_using_a_state_does_not_change_it() -> None:
    state = advanced_twice()
    before = state.to_bytes()
    torch.randn(8, generator=state.generator())
    assert state.to_bytes() == before
