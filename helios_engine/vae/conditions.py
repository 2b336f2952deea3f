"""What the VAE encoder makes of an image or a clip: distributions of latents, which the sampler draws from."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """Normal distribution of normalised latents; mean and std (1, 16, T, H/8, W/8) float32."""

    mean: torch.Tensor
    std: torch.Tensor

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """A draw, given N(0, 1) noise of the same shape."""
        return torch.addcmul(self.mean, self.std, noise)


@dataclass(frozen=True, kw_only=True)
class ImageCondition:
    """image: the still as one latent frame. still: the last latent frame of the still held for a whole chunk."""

    image: Posterior
    still: Posterior


@dataclass(frozen=True, kw_only=True)
class VideoCondition:
    """first: the clip's first frame as one latent frame. chunks: its last chunks, oldest first, of 9 frames each.

    num_chunks: chunks that the whole clip has; those before the given ones are out of the history's reach, so that
    they need not be encoded, but their share of the random numbers is drawn.
    """

    first: Posterior
    chunks: tuple[Posterior, ...]
    num_chunks: int


Condition = ImageCondition | VideoCondition
