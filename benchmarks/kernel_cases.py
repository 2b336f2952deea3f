"""The kernels at the sizes they run at, with their references: what `benchmarks.kernels` times.

Full sizes are those of one 384x640 chunk in the last pyramid stage: L = 11040 tokens (2400 of history), D = 5120,
40 heads x 128; VAE activations as its decoder has them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from helios_kernels import (
    channel_norm,
    gated_residual,
    modulated_norm,
    norm_rotate,
    renoise,
    rgb,
    rms_norm,
    upsample,
    yuv420,
)

EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kernel on one set of arguments. shape: of its main argument, for people."""

    name: str
    launcher: Callable[..., Any]
    reference: Callable[..., Any]
    arguments: tuple[Any, ...]
    shape: str

    def bytes_moved(self) -> int:
        """Every argument read once and every result written once."""
        return tensor_bytes(self.arguments) + tensor_bytes(self.reference(*self.arguments))


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """tokens, history tokens, heads, head width; VAE activations (C, T, h, w) of two stages; frames (T, H, W)."""

    tokens: int
    history: int
    heads: int
    head_width: int
    vae: tuple[tuple[int, int, int, int], tuple[int, int, int, int]]
    frames: tuple[int, int, int]
    dtype: torch.dtype


FULL = Sizes(
    tokens=11040,
    history=2400,
    heads=40,
    head_width=128,
    vae=((384, 9, 48, 80), (96, 33, 384, 640)),
    frames=(33, 384, 640),
    dtype=torch.bfloat16,
)
SMALL = Sizes(
    tokens=690,
    history=150,
    heads=5,
    head_width=128,
    vae=((384, 3, 12, 20), (96, 5, 48, 80)),
    frames=(5, 96, 160),
    dtype=torch.float32,
)
"""What a CPU can time in a minute; float32 is what the engine runs in there."""


def cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    """All kernels. Arguments are made one case at a time: the largest take gigabytes."""
    yield from block_cases(sizes, device)
    yield from vae_cases(sizes, device)
    yield from latent_cases(sizes, device)


def block_cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    """The transformer block's."""
    tokens, history, dim = sizes.tokens, sizes.history, sizes.heads * sizes.head_width
    x, update = (torch.randn(1, tokens, dim, device=device).to(sizes.dtype) for _ in range(2))
    gate, shift, scale = torch.randn(3, 2, dim, device=device)
    weight, bias = torch.randn(2, dim, device=device)
    half = weight.to(sizes.dtype)
    qkv = torch.randn(1, tokens, 3 * dim, device=device).to(sizes.dtype)
    q, k, _ = qkv.chunk(3, dim=-1)
    angle = torch.randn(tokens, sizes.head_width // 2, device=device)
    table = torch.stack([angle.cos(), angle.sin()], dim=-1)  # not complex: torch.compile falls back on complex numbers
    key_scale = torch.rand(sizes.heads, device=device) + 1.0
    modulated, gated = modulated_norm, gated_residual
    named: list[tuple[str, Any, Any, tuple[Any, ...]]] = [
        (
            "modulated_norm",
            modulated.modulated_norm_triton,
            modulated.modulated_norm_ref,
            (x, history, shift, scale, EPS),
        ),
        ("affine_norm", modulated.affine_norm_triton, modulated.affine_norm_ref, (x, weight, bias, EPS)),
        (
            "add_gated_modulated_norm",
            gated.add_gated_modulated_norm_triton,
            gated.add_gated_modulated_norm_ref,
            (x, update, history, gate, shift, scale, EPS),
        ),
        (
            "add_gated_affine_norm",
            gated.add_gated_affine_norm_triton,
            gated.add_gated_affine_norm_ref,
            (x, update, history, gate, weight, bias, EPS),
        ),
        (
            "add_noisy_modulated_norm",
            gated.add_noisy_modulated_norm_triton,
            gated.add_noisy_modulated_norm_ref,
            (x, update[:, history:], history, shift, scale, EPS),
        ),
        (
            "norm_rotate",
            norm_rotate.norm_rotate_triton,
            norm_rotate.norm_rotate_ref,
            (q, k, half, half, table, sizes.heads, EPS, history, key_scale),
        ),
        ("rms_norm", rms_norm.rms_norm_triton, rms_norm.rms_norm_ref, (x[:, history:], half, EPS)),
    ]
    for name, launcher, reference, arguments in named:
        yield Case(name=name, launcher=launcher, reference=reference, arguments=arguments, shape=shape_of(arguments[0]))


def vae_cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    """The decoder's norm, in both memory formats."""
    for shape in sizes.vae:
        for name, memory in (("", torch.contiguous_format), (", channels last", torch.channels_last_3d)):
            x = torch.randn(1, *shape, device=device).to(sizes.dtype).contiguous(memory_format=memory)
            yield Case(
                name=f"channel_norm + SiLU + 2 frames{name}",
                launcher=padded_norm(channel_norm.channel_norm_triton),
                reference=padded_norm(channel_norm.channel_norm_ref),
                arguments=(x, torch.randn(shape[0], device=device)),
                shape=shape_of(x),
            )


def padded_norm(path: Callable[..., torch.Tensor]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """What stands before a 3x3x3 convolution."""
    return lambda x, gamma: path(x, gamma, silu=True, past=2)


def latent_cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    """The scheduler's updates and the frames."""
    frames, height, width = sizes.frames
    latents = torch.randn(3, 1, 16, 9, height // 8, width // 8, device=device)
    coarse, pixels = latents[0, ..., ::2, ::2].contiguous(), torch.randn(3, frames, height, width, device=device) / 3
    rgb_frames = rgb.rgb_frames_ref(pixels)
    for name, launcher, reference, arguments in (
        ("renoise", renoise.renoise_triton, renoise.renoise_ref, (*latents, 0.9, 0.4)),
        (
            "upsample_renoise",
            upsample.upsample_renoise_triton,
            upsample.upsample_renoise_ref,
            (coarse, latents[1], 1.2, 0.7),
        ),
        ("rgb_frames", rgb.rgb_frames_triton, rgb.rgb_frames_ref, (pixels,)),
        ("yuv420_frames of pixels", yuv420.yuv420_frames_triton, yuv420.yuv420_frames_ref, (pixels,)),
        ("yuv420_frames of RGB", yuv420.yuv420_frames_triton, yuv420.yuv420_frames_ref, (rgb_frames,)),
    ):
        yield Case(name=name, launcher=launcher, reference=reference, arguments=arguments, shape=shape_of(arguments[0]))


def shape_of(x: torch.Tensor) -> str:
    """Sizes and dtype: "1x690x640 float32"."""
    return f"{'x'.join(map(str, x.shape))} {str(x.dtype).removeprefix('torch.')}"


def tensor_bytes(values: Any) -> int:
    """Bytes of the tensor, or of those in the tuple. A view counts what it shows."""
    if isinstance(values, torch.Tensor):
        return values.numel() * values.element_size()
    return sum(map(tensor_bytes, values)) if isinstance(values, tuple) else 0
