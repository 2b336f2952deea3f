"""The small text encoder, which is trained along with Base, and prompts as it sees them."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from helios_engine.text.embeds import MAX_PROMPT_TOKENS
from helios_engine.text.encoder import clean_prompt
from helios_training.small.sizes import TEXT_DIM
from helios_training.small.vocabulary import make_tokenizer, vocabulary


def text_config() -> Any:
    """UMT5's layout: two layers of width 64."""
    from transformers import UMT5Config

    config = UMT5Config(
        vocab_size=len(vocabulary()),
        d_model=TEXT_DIM,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        tie_word_embeddings=False,
    )
    config.architectures = ["UMT5EncoderModel"]
    return config


class SmallText(nn.Module):
    """Prompts to embeddings with gradients; the parameters are those of `UMT5EncoderModel`."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import UMT5EncoderModel

        self.model = UMT5EncoderModel(text_config())
        self.tokenizer = make_tokenizer()

    def forward(self, prompts: Sequence[str]) -> torch.Tensor:
        """(B, 512, 64), zero beyond each prompt's tokens, as the engine's text encoder gives it."""
        tokens = self.tokenizer(
            [clean_prompt(prompt) for prompt in prompts],
            padding="longest",
            max_length=MAX_PROMPT_TOKENS,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        device = self.model.shared.weight.device
        mask = tokens.attention_mask.to(device)
        embeds: torch.Tensor = self.model(tokens.input_ids.to(device), mask).last_hidden_state
        embeds = embeds.masked_fill(mask[..., None] == 0, 0)
        return F.pad(embeds, (0, 0, 0, MAX_PROMPT_TOKENS - embeds.shape[1]))
