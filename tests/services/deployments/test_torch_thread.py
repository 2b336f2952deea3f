"""Calls are served by the thread that has loaded and warmed up the model: torch keeps much for each thread."""

import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from helios_engine.accelerate.compiling import VARIANTS_OF_A_BLOCK
from helios_engine.loading.tiny import write_tiny
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState
from helios_engine.text.encoder import TextEncoder
from helios_engine.variants import make_request
from helios_services.config import ServiceConfig
from helios_services.deployments.replicas import denoiser, text_encoder
from helios_services.deployments.replicas.denoiser import DenoiserReplica
from helios_services.deployments.replicas.text_encoder import TextEncoderReplica
from support.tiny import tiny_service


def config(tmp_path: Path, **denoiser: Any) -> ServiceConfig:
    write_tiny(tmp_path / "tiny")
    return tiny_service(tmp_path / "tiny", tmp_path, denoiser=denoiser)


class Seen:
    """The threads that have called the wrapped functions."""

    def __init__(self) -> None:
        self.threads: dict[str, set[int]] = {}

    def wrap(self, monkeypatch: pytest.MonkeyPatch, owner: type | ModuleType, name: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            self.threads.setdefault(name, set()).add(threading.get_ident())
            return original(*args, **options)

        monkeypatch.setattr(owner, name, call)


async def test_the_denoiser_compiles_warms_up_and_serves_on_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen()
    limits: list[int] = []
    monkeypatch.setattr(Denoiser, "warm_up", lambda *_: seen.threads.update(warm_up={threading.get_ident()}))
    seen.wrap(monkeypatch, denoiser, "load_denoiser")
    replica = DenoiserReplica(config(tmp_path, compile="regional"))

    def no_chunk(state: DenoiseState, *_: Any) -> tuple[torch.Tensor, DenoiseState]:
        limits.append(torch._dynamo.config.recompile_limit)
        return torch.zeros(0), state

    monkeypatch.setattr(replica._denoiser, "denoise_chunk", no_chunk)
    seen.wrap(monkeypatch, type(replica), "_denoise")
    state = DenoiseState.initial(make_request("distilled", prompt="a lake", height=64, width=64))
    await replica.denoise_chunk(state, torch.ones(1, 32))
    assert limits == [VARIANTS_OF_A_BLOCK]
    assert seen.threads["_denoise"] == seen.threads["warm_up"] == seen.threads["load_denoiser"]
    assert threading.get_ident() not in seen.threads["_denoise"]


async def test_the_text_encoder_loads_and_serves_on_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen()
    seen.wrap(monkeypatch, text_encoder, "load_text_encoder")
    seen.wrap(monkeypatch, TextEncoder, "encode")
    await TextEncoderReplica(config(tmp_path)).embed("a lake")
    assert seen.threads["encode"] == seen.threads["load_text_encoder"]
    assert threading.get_ident() not in seen.threads["encode"]
