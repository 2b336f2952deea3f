"""The model's own sizes, and offsets past 2^31: on a GPU only, the interpreter would take hours."""

import pytest
import torch

import kernel_checks
from helios_kernels import channel_norm, gated_residual, modulated_norm, norm_rotate, renoise, rgb, rms_norm, yuv420
from kernel_checks import assert_close

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="full-size kernels need a CUDA GPU")
BF16 = torch.bfloat16
TOKENS = (1, 11040, 5120, 2400)


@pytest.fixture
def gpu() -> torch.device:
    """The current GPU, with nothing cached."""
    torch.cuda.empty_cache()
    return torch.device("cuda")


def test_block_kernels(gpu: torch.device) -> None:
    kernel_checks.modulated_norm(modulated_norm, gpu, BF16, TOKENS, "contiguous")
    kernel_checks.gated_residual(gated_residual, gpu, BF16, TOKENS, "contiguous")
    kernel_checks.rms_norm(rms_norm, gpu, BF16, TOKENS, "contiguous")


@pytest.mark.parametrize("first", [0, 2400])
def test_rotation(gpu: torch.device, first: int) -> None:
    kernel_checks.norm_rotate(norm_rotate, gpu, BF16, (1, 11040, 40, 128, 2400), scales=40, first=first)


@pytest.mark.parametrize("memory", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(1, 384, 9, 48, 80), (1, 96, 9, 384, 640)])
def test_vae_norm(gpu: torch.device, shape: tuple[int, int, int, int, int], memory: str) -> None:
    kernel_checks.channel_norm(channel_norm, gpu, BF16, shape, memory)


def test_latents_and_frames(gpu: torch.device) -> None:
    kernel_checks.renoise(renoise, gpu, BF16, (1, 16, 9, 48, 80), 0.4)
    kernel_checks.rgb(rgb, gpu, BF16, (33, 384, 640))
    kernel_checks.yuv420(yuv420, gpu, BF16, (33, 384, 640))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last_3d])
def test_more_values_than_32_bits_count(gpu: torch.device, memory: torch.memory_format) -> None:
    """The last frames of a 720p chunk lie beyond 2^31 values; the norm of a frame does not depend on the others."""
    if torch.cuda.mem_get_info()[0] < 20e9:
        pytest.skip("needs 20 GB of GPU memory")
    x = torch.empty(1, 96, 33, 720, 1280, dtype=BF16, device=gpu).contiguous(memory_format=memory)
    assert x.numel() > 2**31
    x.normal_(generator=torch.Generator(gpu).manual_seed(0))
    gamma = torch.ones(96, device=gpu)
    out = channel_norm.channel_norm_triton(x, gamma, silu=True, past=2)
    for frame in (0, 32):
        expected = channel_norm.channel_norm_ref(x[:, :, frame : frame + 1], gamma, silu=True)
        assert_close(out[:, :, frame + 2 : frame + 3], expected)
