"""A replica is warmed up before its first job where something is compiled or timed, and only there."""

from pathlib import Path
from typing import Any

import pytest
import torch

from helios_engine.loading.tiny import write_tiny
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.ops.attention_backends import torchs_choice
from helios_engine.request import GenerationRequest
from helios_engine.sampling.denoiser import Denoiser
from helios_services.config import ServiceConfig
from helios_services.deployments.replicas import load_denoiser as module
from support.tiny import tiny_service

CPU = torch.device("cpu")


def config(tmp_path: Path, **denoiser: Any) -> ServiceConfig:
    write_tiny(tmp_path / "tiny")
    model = {"warm_up_sizes": [[384, 640], [64, 128]]}
    return tiny_service(tmp_path / "tiny", tmp_path, model=model, denoiser=denoiser)


@pytest.mark.parametrize("compile", ["off", "regional"])
def test_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compile: str) -> None:
    warmed, caches = list[GenerationRequest](), list[Path]()
    monkeypatch.setattr(Denoiser, "warm_up", lambda _, request: warmed.append(request))
    monkeypatch.setattr(module, "use_cache", caches.append)
    denoiser = module.load_denoiser(config(tmp_path, compile=compile), CPU)
    assert caches == ([tmp_path / "compile-cache"] if compile == "regional" else [])
    sizes = [(request.height, request.width, request.pyramid_steps) for request in warmed]
    assert sizes == ([(384, 640, (1, 1, 1)), (64, 128, (1, 1, 1))] if compile == "regional" else [])
    assert denoiser.transformer.compiled == (compile == "regional")


@pytest.mark.parametrize("variant", ["base", "mid", "distilled"])
def test_every_variant_takes_the_warm_up_request(variant: str) -> None:
    request = module.warm_up_request(variant, 64, 128)
    assert (request.num_chunks, request.height, request.width) == (1, 64, 128)


def test_the_attention_kernel_is_the_configurations_wish(tmp_path: Path) -> None:
    transformer = module.load_denoiser(config(tmp_path, attention="torch"), CPU).transformer
    assert isinstance(transformer, HeliosTransformer)
    assert transformer.attend is torchs_choice


def test_8_bit_layers_are_the_configurations_wish(tmp_path: Path) -> None:
    denoiser = module.load_denoiser(config(tmp_path, fp8=True), CPU)
    assert {p.dtype for p in denoiser.transformer.parameters()} == {torch.float32, torch.float8_e4m3fn}
