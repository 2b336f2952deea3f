"""What a model of one of the sizes takes, without a checkpoint of it."""

import torch
from transformers import UMT5Config, UMT5EncoderModel

from benchmarks.sizes import Size
from helios_engine.loading.shapes import shapes
from helios_engine.planning.needs import Needs


def needs_of(size: Size, *, guided: bool = False) -> Needs:
    """For plans. guided: as Base and Mid are, not Distilled."""
    text = size.text
    config = UMT5Config(
        vocab_size=text.vocab_size,
        d_model=text.d_model,
        d_kv=text.d_kv,
        d_ff=text.d_ff,
        num_layers=text.layers,
        num_heads=text.heads,
    )
    with torch.device("meta"):
        encoder = shapes(UMT5EncoderModel(config))
    return Needs(size.transformer, size.vae, encoder, guided=guided, height=size.height, width=size.width)
