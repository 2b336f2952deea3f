"""Reads the small model's parts from a checkpoint, to go on with them in another stage."""

from pathlib import Path

import torch
from torch import nn

from helios_engine.checkpoint import load_weights, open_checkpoint
from helios_engine.errors import CheckpointError
from helios_engine.loading.shapes import shapes
from helios_engine.loading.text import load_text_encoder
from helios_engine.model.transformer import HeliosTransformer
from helios_engine.options import VariantName
from helios_training.errors import TrainingError


def load_transformer(root: Path, variant: VariantName, stage: str) -> HeliosTransformer:
    """The DiT in float32. Raises TrainingError unless the checkpoint is sound and of this variant."""
    try:
        checkpoint = open_checkpoint(root)
        if checkpoint.variant != variant:
            found = f"{root}: variant: {checkpoint.variant!r} is not allowed"
            raise TrainingError(f"{found}; allowed: {variant!r}, from which {stage} starts")
        with torch.device("meta"):
            model = HeliosTransformer(checkpoint.transformer)
        folder = checkpoint.root / "transformer"
        weights = load_weights(folder, shapes(model), device="cpu", dtype_of=lambda _: torch.float32)
    except CheckpointError as error:
        raise TrainingError(str(error)) from None
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_(True)


class FrozenText(nn.Module):
    """The checkpoint's text encoder, each prompt encoded once."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._encoder = load_text_encoder(root, dtype=torch.float32)
        self._known: dict[str, torch.Tensor] = {}

    def forward(self, captions: list[str]) -> torch.Tensor:
        """(B, 512, text_dim)."""
        for caption in set(captions) - self._known.keys():
            self._known[caption] = self._encoder.encode([caption])[0].clone()
        return torch.stack([self._known[caption] for caption in captions])
