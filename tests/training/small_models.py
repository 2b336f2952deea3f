"""A DiT so small that a test trains it, with weights that leave nothing at zero."""

import torch
from torch import nn

from helios_engine.configs import TransformerConfig
from helios_engine.model.transformer import HeliosTransformer

CONFIG = TransformerConfig(
    num_attention_heads=2,
    attention_head_dim=12,
    rope_dim=(4, 4, 4),
    text_dim=8,
    freq_dim=16,
    ffn_dim=32,
    num_layers=2,
    is_amplify_history=False,
)


def random_transformer(seed: int = 0) -> HeliosTransformer:
    """Weights of sane scale from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = HeliosTransformer(CONFIG)
        with torch.no_grad():
            for name, value in model.named_parameters():
                if "scale_shift_table" in name:
                    value.normal_(std=0.3)
    return model


class Words(nn.Module):
    """Stands for a text encoder: an embedding for each caption's length, one token."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(200, CONFIG.text_dim)

    def forward(self, captions: list[str]) -> torch.Tensor:
        """(B, 512, text_dim)."""
        rows = self.table(torch.tensor([len(caption) for caption in captions]))
        return nn.functional.pad(rows[:, None], (0, 0, 0, 511))
