"""The engine on its fused kernels: they run, a block, a chunk and a decoded video are those of the plain path.

On a GPU the kernels are compiled; under Triton's interpreter (test_interpreted.py) they take CPU tensors.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from helios_engine.configs import SchedulerConfig, TransformerConfig, VAEConfig
from helios_engine.loading.tiny import random_weights
from helios_engine.model.attention import TextKeysValues, key_scales
from helios_engine.model.block import Block, Modulation
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.request import GenerationRequest
from helios_engine.sampling.denoiser import Denoiser
from helios_engine.sampling.state import DenoiseState
from helios_engine.vae.decoder import VAEDecoder, WanDecoder
from helios_kernels import (
    backend,
    channel_norm,
    gated_residual,
    gated_residual_kernel,
    modulated_norm,
    norm_rotate,
    renoise,
    rgb,
    rms_norm,
    upsample,
    yuv420,
)
from kernel_checks import random

CONFIG = TransformerConfig(
    num_attention_heads=3,
    attention_head_dim=12,
    rope_dim=(4, 4, 4),
    text_dim=20,
    freq_dim=16,
    ffn_dim=50,
    num_layers=2,
    is_amplify_history=True,
)
VAE = VAEConfig(base_dim=4, num_res_blocks=1, latents_mean=(0.1,) * 16, latents_std=(1.5,) * 16)
TOLERANCE = 1e-4
"""Relative. float32 throughout; matrix products amplify the last bits of their inputs."""
KERNELS = {
    "modulated_norm": (modulated_norm, "_modulated_norm_kernel"),
    "gated_residual": (gated_residual_kernel, "_gated_residual_kernel"),
    "norm_rotate": (norm_rotate, "_norm_rotate_kernel"),
    "rms_norm": (rms_norm, "_rms_norm_kernel"),
    "channel_norm": (channel_norm, "_channel_norm_kernel"),
    "renoise": (renoise, "_renoise_kernel"),
    "upsample": (upsample, "_upsample_kernel"),
    "rgb": (rgb, "_rgb_kernel"),
    "yuv420": (yuv420, "_yuv420_kernel"),
}


class Counted:
    """A kernel that counts its launches."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.launches = kernel, 0

    def __getitem__(self, grid: Any) -> Any:
        self.launches += 1
        return self.kernel[grid]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """Which kernels were launched so far."""
    counted = {}
    for name, (module, kernel) in KERNELS.items():
        counted[name] = Counted(getattr(module, kernel))
        monkeypatch.setattr(module, kernel, counted[name])
    return lambda: {name for name, kernel in counted.items() if kernel.launches}


def both(monkeypatch: pytest.MonkeyPatch, work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The work's result on the kernels' path and on the plain one."""
    results = []
    for path in ("triton", "reference"):
        monkeypatch.setenv(backend.SWITCH, path)
        with torch.inference_mode():
            results.append(work())
    return results[0], results[1]


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative."""
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


def block_call(device: torch.device, *, noisy_only: bool, joined: bool, padding: int = 1) -> Callable[[], torch.Tensor]:
    """A block with weights of which none is at its initialisation, on arguments of two videos."""
    torch.manual_seed(0)
    block = Block(CONFIG).requires_grad_(False)
    for name, parameter in block.named_parameters():
        if not name.endswith(("proj.weight", "0.weight")):
            parameter.add_(0.3 * torch.randn_like(parameter))
    block.to(device)
    if joined:
        block.attn1.join_projections()
    x, normed = (random(2, 7, 36, device=device, seed=seed) for seed in (0, 4))
    assert block.attn1.history_key_scale is not None
    modulation = Modulation(
        own_26D=random(2, 6, 36, device=device, seed=1),
        following_22D=random(2, 2, 36, device=device, seed=5),
        key_scale_H=key_scales(block.attn1.history_key_scale),
    )
    table = torch.polar(torch.ones(7, 6), torch.randn(7, 6)).to(device)
    keys, values = (random(2, 5, 3, 12, device=device, seed=seed) for seed in (2, 3))
    text = TextKeysValues(keys, values, padding)

    def call() -> torch.Tensor:
        """The tokens, then their norms."""
        return torch.cat(block(x.clone(), normed, modulation, 3, table, text, noisy_only=noisy_only))

    return call


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("noisy_only", [False, True])
def test_block(
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    launches: Callable[[], set[str]],
    noisy_only: bool,
    joined: bool,
) -> None:
    fused, plain = both(monkeypatch, block_call(device, noisy_only=noisy_only, joined=joined, padding=4))
    assert launches() == {"norm_rotate", "gated_residual", "rms_norm"}
    assert error(fused, plain) < TOLERANCE


def make_denoiser(device: torch.device) -> Denoiser:
    model = HeliosTransformer(CONFIG).eval().requires_grad_(False)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    model.load_state_dict(random_weights(shapes, torch.Generator().manual_seed(3)))
    return Denoiser(model.to(device), SchedulerConfig())


def chunk(device: torch.device) -> Callable[[], torch.Tensor]:
    """A chunk of all three stages."""
    request = GenerationRequest(prompt="a lake", height=64, width=64, num_frames=33, seed=5, pyramid_steps=(2, 1, 1))
    embeds = torch.nn.functional.pad(random(1, 6, 20, device=torch.device("cpu")), (0, 0, 0, 506))
    # a denoiser of its own for each path: keys and values of prompts are kept
    return lambda: make_denoiser(device).denoise_chunk(DenoiseState.initial(request), embeds)[0]


def test_chunk(device: torch.device, monkeypatch: pytest.MonkeyPatch, launches: Callable[[], set[str]]) -> None:
    fused, plain = both(monkeypatch, chunk(device))
    assert launches() == set(KERNELS) - {"channel_norm", "rgb", "yuv420"}
    assert error(fused, plain) < TOLERANCE


def test_decoded_frames(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, launches: Callable[[], set[str]]
) -> None:
    torch.manual_seed(1)
    model = WanDecoder(VAE).to(device)
    latents = random(1, 16, 2, 2, 4, device=device)
    pixels = both(monkeypatch, lambda: model(latents))
    assert error(*pixels) < TOLERANCE
    frames = both(monkeypatch, lambda: torch.from_numpy(VAEDecoder(model).decode(latents)).int())
    assert frames[0].shape == (5, 16, 32, 3)
    assert (frames[0] - frames[1]).abs().max() <= 1
    sliced = both(monkeypatch, lambda: torch.from_numpy(VAEDecoder(model, activation_budget_bytes=1).decode(latents)))
    assert (sliced[0].int() - frames[1]).abs().max() <= 1  # one latent frame at a time
    assert launches() == {"channel_norm", "rgb"}


@pytest.mark.parametrize("budget", [None, 1])
def test_frames_for_a_video_are_planes_where_the_kernels_run(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, launches: Callable[[], set[str]], budget: int | None
) -> None:
    torch.manual_seed(1)
    decoder = VAEDecoder(WanDecoder(VAE).to(device), activation_budget_bytes=budget)
    latents = random(1, 16, 2, 2, 4, device=device)
    planes, frames = both(monkeypatch, lambda: torch.from_numpy(decoder.decode_for_video(latents)))
    assert launches() == {"channel_norm", "yuv420"}
    assert (planes.shape, frames.shape) == ((5, 24, 32), (5, 16, 32, 3))
    assert frames.tolist() == decoder.decode(latents).tolist()
    assert (planes.int() - yuv420.yuv420_frames_ref(frames).int()).abs().max() <= 1


WRONG: list[tuple[str, Any, str, Callable[..., Any]]] = [
    ("chunk", modulated_norm, "modulated_norm_triton", lambda x, n, shift, scale, eps: x),
    ("block", rms_norm, "rms_norm_triton", lambda x, weight, eps: x),
    (
        "block",
        norm_rotate,
        "norm_rotate_triton",
        lambda q, k, *rest: norm_rotate.norm_rotate_ref(q, 1.01 * k + 1, *rest),
    ),
    (
        "block",
        gated_residual,
        "add_gated_modulated_norm_triton",
        lambda x, update, n, gate, *norm: gated_residual.add_gated_modulated_norm_ref(x, update, 0, gate, *norm),
    ),
    (
        "chunk",
        renoise,
        "renoise_triton",
        lambda x, v, start, sigma, following: renoise.renoise_ref(x, v, start, 1.01 * sigma, following),
    ),
    ("chunk", upsample, "upsample_renoise_triton", lambda x, n, a, b: upsample.upsample_renoise_ref(x, n, a, 1.01 * b)),
    (
        "decode",
        channel_norm,
        "channel_norm_triton",
        lambda x, g, silu, past: channel_norm.channel_norm_ref(x, g, silu=False, past=past),
    ),
]


@pytest.mark.parametrize(("part", "module", "launcher", "wrong"), WRONG)
def test_a_wrong_kernel_shows(
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    module: Any,
    launcher: str,
    wrong: Callable[..., Any],
) -> None:
    monkeypatch.setattr(module, launcher, wrong)
    if part == "block":
        work = block_call(device, noisy_only=False, joined=False)
    elif part == "chunk":
        work = chunk(device)
    else:
        torch.manual_seed(1)
        model, latents = WanDecoder(VAE).to(device), random(1, 16, 1, 2, 2, device=device)
        work = lambda: model(latents)  # noqa: E731
    assert error(*both(monkeypatch, work)) > TOLERANCE
