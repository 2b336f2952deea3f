"""One check for each kernel: its Triton launcher against its reference, in the module given (or a mutant of it).

Tolerances. Launcher and reference both compute in float32 and differ in the order of sums: some units of 2^-23,
relative to the largest value (a mean, a sum of squares and up to three multiply-adds: 32 units are ample at the widths
tested). Rounding that to the output's dtype can give neighbouring values: one unit in the last place, at most the
dtype's eps relative to the value. (Triton's interpreter rounds bfloat16 towards zero, which is one unit too.)
"""

from types import ModuleType

import torch

EPS = 1e-6


def assert_close(actual: torch.Tensor, expected: torch.Tensor, units: float = 1.0) -> None:
    """Same shape, dtype and values up to float32 sums and `units` in the last place of the dtype."""
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    if not expected.numel():
        return
    wide = expected.double()
    float32_sums = 32 * 2**-23 * wide.abs().max().item()
    rounding = 0.0 if expected.dtype == torch.float32 else units * torch.finfo(expected.dtype).eps
    torch.testing.assert_close(actual.double(), wide, rtol=rounding, atol=float32_sums)


def random(*shape: int, device: torch.device, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """N(0, 1), with a mean that a norm has to remove; the same on every device."""
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 0.5).to(device, dtype)


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """x (B, L, D) with other strides: a slice of a wider tensor, or transposed memory."""
    if layout == "sliced":
        batch, tokens, width = x.shape
        wide = x.new_full((batch, tokens + 2, 2 * width + 3), float("nan"))
        wide[:, 1:-1, 3 : 3 + width] = x
        return wide[:, 1:-1, 3 : 3 + width]
    return x.transpose(1, 2).contiguous().transpose(1, 2) if layout == "transposed" else x


def modulated_norm(
    module: ModuleType, device: torch.device, dtype: torch.dtype, case: tuple[int, int, int, int], layout: str
) -> None:
    """case: batch, tokens, width, history tokens."""
    batch, tokens, width, history = case
    x = laid_out(random(batch, tokens, width, device=device, dtype=dtype), layout)
    shift, _, scale = random(2, 3, width, device=device, seed=1).unbind(1)  # rows are strided, as in a block
    actual = module.modulated_norm_triton(x, history, shift, scale, EPS)
    assert_close(actual, module.modulated_norm_ref(x, history, shift, scale, EPS))
    weight, bias = random(2, width, device=device, seed=2)
    assert_close(module.affine_norm_triton(x, weight, bias, EPS), module.affine_norm_ref(x, weight, bias, EPS))


def gated_residual(
    module: ModuleType, device: torch.device, dtype: torch.dtype, case: tuple[int, int, int, int], layout: str
) -> None:
    """All three combinations. The norms are held to the reference's norm of the launcher's own residual."""
    from helios_kernels.modulated_norm import affine_norm_ref, modulated_norm_ref

    batch, tokens, width, history = case
    x = laid_out(random(batch, tokens, width, device=device, dtype=dtype), layout)
    before = x.clone()
    update = laid_out(random(batch, tokens, width, device=device, dtype=dtype, seed=1), layout)
    gate, shift, scale = random(2, 3, width, device=device, seed=2).unbind(1)
    weight, bias = random(2, width, device=device, seed=3)
    expected = module.add_gated_ref(x, update, history, gate)
    residual, normed = module.add_gated_modulated_norm_triton(x, update, history, gate, shift, scale, EPS)
    assert_close(residual, expected)
    assert_close(normed, modulated_norm_ref(residual, history, shift, scale, EPS))

    residual, normed = module.add_gated_affine_norm_triton(x, update, history, gate, weight, bias, EPS)
    assert_close(residual, expected)
    assert_close(normed, affine_norm_ref(residual[:, history:], weight, bias, EPS))

    noisy = update[:, history:]
    expected, _ = module.add_noisy_modulated_norm_ref(x, noisy, history, shift, scale, EPS)
    residual, normed = module.add_noisy_modulated_norm_triton(x, noisy, history, shift, scale, EPS)
    assert_close(residual, expected)
    assert_close(normed, modulated_norm_ref(residual, history, shift, scale, EPS))
    assert torch.equal(x, before)


def rms_norm(
    module: ModuleType, device: torch.device, dtype: torch.dtype, case: tuple[int, int, int, int], layout: str
) -> None:
    """case: batch, tokens, width, unused."""
    batch, tokens, width, _ = case
    x = laid_out(random(batch, tokens, width, device=device, dtype=dtype), layout)
    weight = random(width, device=device, dtype=dtype, seed=1)
    assert_close(module.rms_norm_triton(x, weight, EPS), module.rms_norm_ref(x, weight, EPS))


def norm_rotate(
    module: ModuleType,
    device: torch.device,
    dtype: torch.dtype,
    case: tuple[int, int, int, int, int],
    *,
    fused: bool = True,
    first: int = 0,
    scales: int | None = None,
    real_table: bool = False,
) -> None:
    """case: batch, tokens, heads, head width, history tokens. first: which token asks first. scales: how many."""
    batch, tokens, heads, width, history = case
    dim = heads * width
    qkv = random(batch, tokens, 3 * dim, device=device, dtype=dtype)
    q, k, _ = qkv.chunk(3, dim=-1) if fused else (part.contiguous() for part in qkv.chunk(3, dim=-1))
    q_weight, k_weight = random(2, dim, device=device, dtype=dtype, seed=1)
    angle = random(tokens, width // 2, device=device, seed=2)
    table = torch.polar(torch.full_like(angle, 0.9), angle)  # pooled tables are shorter than 1
    key_scale = None if scales is None else random(scales, device=device, seed=3) + 2.0
    arguments = (q[:, first:], k, q_weight, k_weight, torch.view_as_real(table) if real_table else table)
    actual = module.norm_rotate_triton(*arguments, heads, EPS, history, key_scale)
    expected = module.norm_rotate_ref(*arguments, heads, EPS, history, key_scale)
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other)


def channel_norm(
    module: ModuleType,
    device: torch.device,
    dtype: torch.dtype,
    shape: tuple[int, int, int, int, int],
    memory: str,
    *,
    silu: bool = True,
    past: int = 2,
) -> None:
    """shape: (B, C, T, h, w). memory: contiguous, channels_last, or a slice of frames or columns of either."""
    batch, channels, frames, height, width = shape
    x = random(batch, channels, frames + 2, height, width + 2, device=device, dtype=dtype)
    x[:, :, 1, 0, 1] = 0.0  # a position of zeros stays zero: no division by its length
    if "columns" in memory:
        x = _channels_last(x, memory)[:, :, 1:-1, :, 1:-1]
    elif "frames" in memory:
        x = _channels_last(x[..., 1:-1].contiguous(), memory)[:, :, 1:-1]
    else:
        x = _channels_last(x[:, :, 1:-1, :, 1:-1].contiguous(), memory)
    gamma = random(channels, 1, 1, 1, device=device, seed=1)
    actual = module.channel_norm_triton(x, gamma, silu=silu, past=past)
    assert_close(actual, module.channel_norm_ref(x, gamma, silu=silu, past=past))
    assert not actual[:, :, :past].any()
    layout = torch.channels_last_3d if "channels_last" in memory and channels > 1 else torch.contiguous_format
    assert actual.is_contiguous(memory_format=layout)


def _channels_last(x: torch.Tensor, memory: str) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d) if "channels_last" in memory else x


def renoise(module: ModuleType, device: torch.device, dtype: torch.dtype, shape: tuple[int, ...], noise: float) -> None:
    """noise: the level to arrive at. The velocity's memory is transposed."""
    latents, start = (random(*shape, device=device, seed=seed) for seed in (0, 1))
    velocity = random(*shape[::-1], device=device, dtype=dtype, seed=2).permute(*reversed(range(len(shape))))
    actual = module.renoise_triton(latents, velocity, start, 0.8, noise)
    assert_close(actual, module.renoise_ref(latents, velocity, start, 0.8, noise))


def upsample(module: ModuleType, device: torch.device, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """shape: (B, C, T, h, w)."""
    *outer, height, width = shape
    latents = random(*outer, width, height, device=device, dtype=dtype).transpose(-1, -2)
    noise = random(*outer, 2 * height, 2 * width, device=device, seed=1)
    actual = module.upsample_renoise_triton(latents, noise, 1.3, 0.4)
    assert_close(actual, module.upsample_renoise_ref(latents, noise, 1.3, 0.4))


def pixels(*shape: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """(3, T, H, W): mostly within [-1, 1], some outside, and exact halves between two levels."""
    x = random(*shape, device=device) * 0.6 - 0.3
    x.view(-1)[::7] = (torch.arange(x.numel(), device=device)[::7] % 255 + 0.5) / 127.5 - 1.0
    return x.to(dtype)


def rgb(module: ModuleType, device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    """shape: (T, H, W). Equal, bit by bit, for channels-first and channels-last memory."""
    x = pixels(3, *shape, device=device, dtype=dtype)
    for each in (x, x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)):
        assert torch.equal(module.rgb_frames_triton(each), module.rgb_frames_ref(each))


def yuv420(module: ModuleType, device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    """shape: (T, H, W). Sums in another order may fall on the other side of a half: one level, seldom."""
    from helios_kernels.rgb import rgb_frames_ref

    x = pixels(3, *shape, device=device, dtype=dtype)
    expected = module.yuv420_frames_ref(x).int()
    for frames in (x, rgb_frames_ref(x)):
        difference = (module.yuv420_frames_triton(frames).int() - expected).abs()
        assert difference.max() <= 1
        assert difference.float().mean() < 0.01
