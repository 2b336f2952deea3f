"""UMT5 text encoder (transformers) and prompt cleaning. Source: `_get_t5_prompt_embeds`, `prompt_clean` (diffusers)."""

import html
import re
from collections.abc import Sequence
from typing import Any

import ftfy
import torch
import torch.nn.functional as F

from helios_engine.text.embeds import MAX_PROMPT_TOKENS


def clean_prompt(text: str) -> str:
    """Repairs mojibake, resolves HTML entities (twice), folds white space."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip()


class TextEncoder:
    """UMT5 with its tokenizer: turns prompts into prompt embeddings."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer

    @torch.no_grad()  # not inference mode: what it returns may be trained on
    def encode(self, prompts: Sequence[str]) -> torch.Tensor:
        """Prompt embeddings of N prompts: (N, 512, text_dim) on the CPU, in the model's dtype.

        Rows behind a prompt's own tokens are zero. A prompt of more than 512 tokens is cut.
        """
        return self.embed(prompts).cpu()

    def embed(self, prompts: Sequence[str]) -> torch.Tensor:
        """The same as `encode`, but on the model's device.

        Gradients flow to the model's parameters where those ask for any.
        """
        tokens = self.tokenizer(
            [clean_prompt(prompt) for prompt in prompts],
            padding="longest",  # tokens do not see padding, so it need not be computed
            max_length=MAX_PROMPT_TOKENS,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask.to(self.model.device)
        embeds: torch.Tensor = self.model(tokens.input_ids.to(self.model.device), mask).last_hidden_state
        embeds = embeds.masked_fill(mask[..., None] == 0, 0)
        return F.pad(embeds, (0, 0, 0, MAX_PROMPT_TOKENS - embeds.shape[1]))
