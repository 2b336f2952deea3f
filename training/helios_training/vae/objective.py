"""What the VAE minimises: a weighted reconstruction error and a small pull of its latents towards N(0, 1).

    L = mean(w ((x' - x)^2 + 0.15 |x' - x|)) / mean(w) + 5e-4 KL(q(z | x) || N(0, 1)),    w = 1 + 4 mask
    x' = decode(z + 0.05 e),    z ~ q(z | x) = N(mean, variance) of the encoder

Objects cover a few percent of the picture, and what they look like is what captions speak of; hence w.
"""

import torch
import torch.nn.functional as F
from torch import nn

from helios_training.vae.autoencoder import Autoencoder
from helios_training.vae.batches import PixelBatch

ABSOLUTE_SHARE = 0.15
KL_WEIGHT = 5e-4
"""Below 1e-4 the latents grow without bound."""
LATENT_NOISE = 0.05
"""Standard deviation: neighbours of a latent must decode to the same."""
MOVING_WEIGHT = 4.0


class VAEObjective(nn.Module):
    """forward: a batch of pixels to its loss and metrics. decoder_only: the encoder keeps its weights."""

    def __init__(self, autoencoder: Autoencoder, *, decoder_only: bool = False) -> None:
        super().__init__()
        self.autoencoder, self.decoder_only = autoencoder, decoder_only

    def forward(self, batch: PixelBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Metrics: psnr (dB, all pixels), object_psnr (those of the object), kl (nats an element of the latents)."""
        with torch.set_grad_enabled(not self.decoder_only and torch.is_grad_enabled()):
            mean, log_variance = self.autoencoder.encode(batch.pixels)
        drawn, more = batch.noise.chunk(2, dim=1)
        decoded = self.autoencoder.decode(mean + torch.exp(0.5 * log_variance) * drawn + LATENT_NOISE * more)
        kl = kl_divergence(mean, log_variance)
        square = (decoded.detach() - batch.pixels).square().mean(dim=1, keepdim=True)
        metrics = {
            "psnr": psnr(square.mean()),
            "object_psnr": psnr((square * batch.mask).sum() / batch.mask.sum().clamp_min(1.0)),
            "kl": kl.detach(),
        }
        return reconstruction(decoded, batch.pixels, batch.mask) + KL_WEIGHT * kl, metrics


def reconstruction(decoded: torch.Tensor, pixels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """decoded, pixels: (B, 3, T, H, W); mask: (B, 1, T, H, W), made wider by two pixels so that outlines count."""
    error = decoded - pixels
    near = F.max_pool3d(mask, (1, 5, 5), stride=1, padding=(0, 2, 2))
    weight = 1.0 + MOVING_WEIGHT * near
    per_pixel = (error.square() + ABSOLUTE_SHARE * error.abs()).mean(dim=1, keepdim=True)
    return (weight * per_pixel).sum() / weight.sum()


def kl_divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """The divergence from N(0, 1), as a mean over elements, in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()


def psnr(mean_square: torch.Tensor) -> torch.Tensor:
    """dB, of an error in [-1, 1], whose range is 2."""
    return 10.0 * torch.log10(4.0 / mean_square.clamp_min(1e-10))
