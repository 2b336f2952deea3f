"""What a model of one of the sizes takes, without a checkpoint of it."""

import torch
from transformers import UMT5Config, UMT5EncoderModel

from benchmarks.sizes import Size, TextShape
from helios_engine.loading.shapes import shapes
from helios_engine.planning.needs import Needs


def text_config(shape: TextShape) -> UMT5Config:
    """The configuration of a UMT5 encoder of this shape, without dropout."""
    return UMT5Config(
        vocab_size=shape.vocab_size,
        d_model=shape.d_model,
        d_kv=shape.d_kv,
        d_ff=shape.d_ff,
        num_layers=shape.layers,
        num_heads=shape.heads,
        dropout_rate=0.0,
    )


def needs_of(size: Size, *, guided: bool = False) -> Needs:
    """For plans. guided: as Base and Mid are, not Distilled."""
    with torch.device("meta"):
        encoder = shapes(UMT5EncoderModel(text_config(size.text)))
    return Needs(size.transformer, size.vae, encoder, guided=guided, height=size.height, width=size.width)
