"""UMT5 text encoder (transformers) and prompt cleaning. Source: `_get_t5_prompt_embeds`, `prompt_clean` (diffusers)."""

import html
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import ftfy
import torch
from transformers import AutoConfig, AutoTokenizer, UMT5EncoderModel

from helios_engine.checkpoint.weights import load_weights
from helios_engine.embeds import MAX_TOKENS
from helios_engine.errors import CheckpointError


def clean_prompt(text: str) -> str:
    """Repairs mojibake, resolves HTML entities (twice), folds white space."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip()


class TextEncoder:
    """Prompts to embeddings."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer

    @classmethod
    def from_pretrained(
        cls, path: str | PathLike[str], *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.bfloat16
    ) -> "TextEncoder":
        """Loads `text_encoder/` and `tokenizer/` of a published checkpoint folder. Raises CheckpointError."""
        root = Path(path)
        folder = root / "text_encoder"
        model = _empty_model(root)
        weights = load_weights(folder, _shapes(model), device=device, dtype_of=lambda _: dtype)
        model.load_state_dict(weights, assign=True, strict=False)  # load_weights is strict; tied names are left
        model.tie_weights()
        return cls(model, load_tokenizer(root))

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> torch.Tensor:
        """(N, 512, text_dim) on the CPU in the model's dtype, zero beyond each prompt's tokens."""
        tokens = self.tokenizer(
            [clean_prompt(prompt) for prompt in prompts],
            padding="max_length",
            max_length=MAX_TOKENS,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask.to(self.model.device)
        embeds: torch.Tensor = self.model(tokens.input_ids.to(self.model.device), mask).last_hidden_state
        return embeds.masked_fill(mask[..., None] == 0, 0).cpu()


def expected_tensors(root: Path) -> dict[str, torch.Size]:
    """Names and shapes of the encoder that text_encoder/config.json describes. Raises CheckpointError."""
    return _shapes(_empty_model(root))


def _empty_model(root: Path) -> UMT5EncoderModel:
    file = root / "text_encoder" / "config.json"
    try:
        config = AutoConfig.from_pretrained(root / "text_encoder", local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None
    if config.model_type != "umt5":
        raise CheckpointError(f"{file}: model_type: {config.model_type!r} is not supported; allowed: umt5")
    with torch.device("meta"):
        return UMT5EncoderModel(config)


def _shapes(model: UMT5EncoderModel) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def load_tokenizer(root: Path) -> Any:
    """The checkpoint's tokenizer. Raises CheckpointError."""
    folder = root / "tokenizer"
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: is missing")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises whatever its parsers raise
        raise CheckpointError(f"{folder}: no tokenizer can be loaded from it: {error}") from None
