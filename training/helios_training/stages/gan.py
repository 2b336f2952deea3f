"""Stage 3, the adversarial part: does a section come from data or from the student, by the fake score's features.

    D: 0.01 (softplus(-D(real)) + softplus(D(made))) + 0.01 R1,   G: 0.05 softplus(-D(made))
    R1 = 100 mean (D(x) - D(x + 0.1 e))^2, a finite difference, for real and made x

D sees latents noised to a level s and cropped to half their height and width. Source: Helios' stage 3.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from helios_engine.configs import TransformerConfig
from helios_engine.model.transformer import HeliosTransformer
from helios_training.stages.base import TIMESTEPS
from helios_training.velocity import Conditions, hidden_features

CRITIC_WEIGHT, STUDENT_WEIGHT = 0.01, 0.05
R1_WEIGHT, R1_NOISE = 100.0, 0.1
FIRST_STEP = 1000
"""Distribution matching alone comes first."""
HEADS = 4


def head_blocks(num_layers: int) -> list[int]:
    """The blocks whose features are judged, besides the output: four, spread evenly, the last among them."""
    return sorted({(n + 1) * num_layers // HEADS - 1 for n in range(HEADS) if (n + 1) * num_layers >= HEADS})


class Head(nn.Module):
    """Features of a grid of tokens to one number: 3-D convolutions, GroupNorm, SiLU, the mean of what is left."""

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(width, hidden, 3, padding=1),
            nn.GroupNorm(8, hidden),
            nn.SiLU(),
            nn.Conv3d(hidden, hidden, 3, padding=1),
            nn.GroupNorm(8, hidden),
            nn.SiLU(),
            nn.Conv3d(hidden, 1, 1),
        )

    def forward(self, features_BDTHW: torch.Tensor) -> torch.Tensor:
        """(B,)."""
        judged: torch.Tensor = self.layers(features_BDTHW)
        return judged.flatten(1).mean(dim=1)


class Critic(nn.Module):
    """Heads on a network's features; the network itself is given to `forward`, as it is the fake score."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.blocks = head_blocks(config.num_layers)
        self.heads = nn.ModuleList(Head(config.inner_dim) for _ in range(len(self.blocks) + 1))

    def forward(
        self, network: HeliosTransformer, x_s: torch.Tensor, level_B: torch.Tensor, given: Conditions
    ) -> torch.Tensor:
        """(B,), larger for what looks real. x_s: noised latents, perhaps a crop."""
        features = hidden_features(network, x_s, TIMESTEPS * level_B, given)
        grid = (x_s.shape[2], x_s.shape[3] // 2, x_s.shape[4] // 2)
        seen = [*(features.blocks[n] for n in self.blocks), features.last_BLD]
        judged = [
            head(tokens.transpose(1, 2).unflatten(2, grid).float())
            for head, tokens in zip(self.heads, seen, strict=True)
        ]
        return torch.stack(judged).mean(dim=0)


def half_crop(x_BCThw: torch.Tensor, top: float, left: float) -> torch.Tensor:
    """A window of half the height and width, on the grid of patches. top, left: where, from 0 to 1."""
    height, width = x_BCThw.shape[-2:]
    rows, columns = max(height // 4, 1) * 2, max(width // 4, 1) * 2
    first_row = round(top * (height - rows) / 2) * 2
    first_column = round(left * (width - columns) / 2) * 2
    return x_BCThw[..., first_row : first_row + rows, first_column : first_column + columns]


def critic_loss(real_B: torch.Tensor, made_B: torch.Tensor) -> torch.Tensor:
    """softplus(-D(real)) + softplus(D(made)), without its weight."""
    return F.softplus(-real_B).mean() + F.softplus(made_B).mean()


def student_loss(made_B: torch.Tensor) -> torch.Tensor:
    """softplus(-D(made)), without its weight."""
    return F.softplus(-made_B).mean()


def r1(judge: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """100 mean (D(x) - D(x + 0.1 e))^2: stands for the square of D's gradient, without a second derivative."""
    return R1_WEIGHT * (judge(x) - judge(x + R1_NOISE * noise)).square().mean()


def kept_gradient(loss_of: Callable[[torch.Tensor], torch.Tensor], x0: torch.Tensor) -> torch.Tensor:
    """A loss with the value and the gradient by x0 of loss_of(x0), whose activations are freed before it returns."""
    apart = x0.detach().requires_grad_()
    loss = loss_of(apart)
    (gradient,) = torch.autograd.grad(loss, apart)
    linear = (gradient * x0).sum()
    return linear + (loss - linear).detach()
