"""Random starts of a chunk and of its pyramid stages, drawn in the reference's order and layout.

Noise is drawn on the CPU: the same seed gives the same video on every device, and a generator's state is 5 kB of bytes.
Source: `HeliosPyramidPipeline.__call__` and `sample_block_noise` (diffusers).
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F

VIDEOS_IN_TURN = 8
"""Videos whose next noise is kept, some 0.1 MB each."""


def chunk_noise(shape: tuple[int, ...], stages: int, generator: torch.Generator) -> torch.Tensor:
    """N(0, 1) at full size (1, C, T, h, w), halved `stages - 1` times (bilinear, kept at unit variance)."""
    noise_TChw = torch.randn(shape, generator=generator)[0].transpose(0, 1)
    for _ in range(stages - 1):
        size = (noise_TChw.shape[-2] // 2, noise_TChw.shape[-1] // 2)
        noise_TChw = F.interpolate(noise_TChw, size=size, mode="bilinear") * 2
    return noise_TChw.transpose(0, 1)[None]


class NoiseAhead:
    """`chunk_noise`, drawn before it is asked for: while the device works on the chunk before.

    The stream of random numbers stays what it is: noise is drawn by a copy of the generator, and given out only to a
    generator in the very state that it was drawn from, which then is where drawing would have left it.
    """

    def __init__(self) -> None:
        self._drawn = OrderedDict[tuple[object, ...], tuple[torch.Tensor, torch.Tensor]]()

    def draw(self, shape: tuple[int, ...], stages: int, generator: torch.Generator) -> None:
        """Draws what `take` will be asked for by a generator in this one's state, which is left as it is."""
        state = generator.get_state()
        copy = torch.Generator()
        copy.set_state(state)
        while len(self._drawn) >= VIDEOS_IN_TURN:
            self._drawn.popitem(last=False)
        noise = chunk_noise(shape, stages, copy)
        self._drawn[shape, stages, state.numpy().tobytes()] = noise, copy.get_state()

    def take(self, shape: tuple[int, ...], stages: int, generator: torch.Generator) -> torch.Tensor:
        """What `chunk_noise` gives for these arguments, drawn now or before."""
        drawn = self._drawn.pop((shape, stages, generator.get_state().numpy().tobytes()), None)
        if drawn is None:
            return chunk_noise(shape, stages, generator)
        noise, state = drawn
        generator.set_state(state)
        return noise


def block_covariance(gamma: float) -> torch.Tensor:
    """(1 + gamma) I - gamma J over a 2x2 patch, plus 1e-8 I: singular for gamma = 1/3 without. float64."""
    return torch.eye(4, dtype=torch.float64) * (1.0 + gamma + 1e-8) - gamma


def block_noise(shape: tuple[int, ...], gamma: float, generator: torch.Generator) -> torch.Tensor:
    """Noise of `shape` (1, C, T, h, w) with covariance `block_covariance` over each 2x2 patch."""
    batch, channels, frames, height, width = shape
    factor = torch.linalg.cholesky(block_covariance(gamma)).float()
    blocks = batch * channels * frames * (height // 2) * (width // 2)
    noise: torch.Tensor = torch.randn(blocks, 4, generator=generator) @ factor.T
    noise = noise.view(batch, channels, frames, height // 2, width // 2, 2, 2)
    return noise.transpose(4, 5).reshape(shape)
