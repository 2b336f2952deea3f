"""Pixels to RGB and YUV: launchers against references, references against the engine and libswscale."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import kernel_checks
from helios_kernels import rgb, yuv420

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (1, 33, 41)])
def test_rgb_launcher(device: torch.device, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    kernel_checks.rgb(rgb, device, dtype, shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 6, 10), (1, 34, 42)])
def test_yuv_launcher(device: torch.device, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    kernel_checks.yuv420(yuv420, device, dtype, shape)


def test_rgb_levels() -> None:
    pixels = kernel_checks.pixels(3, 2, 5, 7, device=CPU, dtype=torch.float32)
    expected = ((pixels.clamp(-1.0, 1.0) + 1.0) * 127.5).round().byte().permute(1, 2, 3, 0)
    assert torch.equal(rgb.rgb_frames(pixels), expected)


def swscale(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The planes that `encode_chunk` makes of RGB."""
    av = pytest.importorskip("av")
    converted = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
        format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
    )
    planes: NDArray[np.uint8] = converted.to_ndarray()
    return planes


def levels_off(picture: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Differences to libswscale over all planes."""
    ours = yuv420.yuv420_frames(torch.from_numpy(picture)[None])[0].numpy()
    assert ours.shape == swscale(picture).shape
    difference: NDArray[np.int64] = ours.astype(np.int64) - swscale(picture)
    return difference


def pictures() -> dict[str, NDArray[np.uint8]]:
    """Noise is the hardest for chroma filters; the others are what video is like."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:64, 0:96]
    gradient = np.stack([4 * y, 2 * x, y + x], axis=-1).astype(np.uint8)
    cube = np.stack(np.meshgrid(*[np.linspace(0, 255, 16)] * 3), axis=-1).reshape(64, 64, 3).astype(np.uint8)
    return {
        "noise": generator.integers(0, 256, (64, 96, 3), np.uint8),
        "gradient": gradient,
        "colours": cube.repeat(4, 0).repeat(4, 1),
    }


@pytest.mark.parametrize("name", ["noise", "gradient", "colours"])
def test_yuv_is_within_one_level_of_libswscale(name: str) -> None:
    """Measured with PyAV 18.1: at most 1 level, on every plane; libswscale sums in 15-bit integers."""
    difference = levels_off(pictures()[name])
    assert np.abs(difference).max() <= 1
    assert abs(difference.mean()) < 0.1  # no bias


def test_a_plain_average_of_two_rows_is_not_what_libswscale_does(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = pictures()["noise"]
    mean = picture.reshape(32, 2, 96, 3).mean(1).round().astype(np.uint8).repeat(2, 0)
    assert np.abs(levels_off(picture)).max() <= 1
    chroma = yuv420.yuv420_frames(torch.from_numpy(mean)[None])[0, 64:].numpy().astype(int)
    assert np.abs(chroma - swscale(picture)[64:]).max() > 8
