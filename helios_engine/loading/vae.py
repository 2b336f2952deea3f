"""The two halves of the VAE from a checkpoint."""

from collections.abc import Callable
from os import PathLike
from typing import TypeVar

import torch

from helios_engine.checkpoint import load_weights, open_checkpoint
from helios_engine.configs import VAEConfig
from helios_engine.loading.shapes import shapes
from helios_engine.vae.cudnn import check_cudnn
from helios_engine.vae.decoder import VAEDecoder, WanDecoder
from helios_engine.vae.encoder import VAEEncoder, WanEncoder
from helios_engine.vae.slices import ACTIVATION_BUDGET_BYTES

Half = TypeVar("Half", WanDecoder, WanEncoder)

DECODER_PREFIXES = ("decoder.", "post_quant_conv.")
ENCODER_PREFIXES = ("encoder.", "quant_conv.")
"""What the tensors of each half begin with. A published folder holds both."""


def load_decoder(
    path: str | PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    activation_budget_bytes: int | None = ACTIVATION_BUDGET_BYTES,
) -> VAEDecoder:
    """Loads the decoder half of `vae/`, from a folder or an id on the Hub. Raises CheckpointError; ValueError for
    16 bits on a GPU whose cuDNN is too old.

    On a GPU float32's convolutions are in TF32 unless torch.backends.cudnn.allow_tf32 is off. What bfloat16 costs is
    measured by benchmarks/vae_precision.py. activation_budget_bytes: see `VAEDecoder`.
    """
    check_cudnn(torch.device(device), dtype)
    model = _load_half(WanDecoder, path, device, dtype, ignored_prefixes=ENCODER_PREFIXES)
    return VAEDecoder(model, activation_budget_bytes=activation_budget_bytes)


def load_encoder(
    path: str | PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    activation_budget_bytes: int | None = ACTIVATION_BUDGET_BYTES,
) -> VAEEncoder:
    """Loads the encoder half of `vae/`, from a folder or an id on the Hub. Raises CheckpointError.

    activation_budget_bytes: see `VAEEncoder`.
    """
    model = _load_half(WanEncoder, path, device, dtype, ignored_prefixes=DECODER_PREFIXES)
    return VAEEncoder(model, activation_budget_bytes=activation_budget_bytes)


def _load_half(
    half: Callable[[VAEConfig], Half],
    path: str | PathLike[str],
    device: str | torch.device,
    dtype: torch.dtype,
    *,
    ignored_prefixes: tuple[str, ...],
) -> Half:
    checkpoint = open_checkpoint(path)
    with torch.device("meta"):
        model = half(checkpoint.vae)
    weights = load_weights(
        checkpoint.root / "vae",
        shapes(model),
        device=device,
        dtype_of=lambda _: dtype,
        ignored_prefixes=ignored_prefixes,
    )
    model.load_state_dict(weights, assign=True)
    return model
