"""The text encoder (UMT5) and its tokenizer from a checkpoint."""

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, UMT5EncoderModel

from helios_engine.checkpoint import Checkpoint, load_weights, open_checkpoint
from helios_engine.checkpoint.open import largest
from helios_engine.errors import CheckpointError, shorten
from helios_engine.loading.shapes import shapes
from helios_engine.text.encoder import TextEncoder

TIED_PREFIXES = ("encoder.embed_tokens.",)
"""Another name of `shared.weight`, which some writers store twice."""
MAX_VOCABULARY = 1 << 22
VOCABULARIES = ("tokenizer.json", "spiece.model")


def load_text_encoder(
    path: str | PathLike[str], *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.bfloat16
) -> TextEncoder:
    """Loads `text_encoder/` and `tokenizer/`, from a folder or an id on the Hub. Raises CheckpointError."""
    checkpoint = open_checkpoint(path)
    model = empty_model(checkpoint)
    weights = load_weights(
        checkpoint.root / "text_encoder",
        shapes(model),
        device=device,
        dtype_of=lambda _: dtype,
        ignored_prefixes=TIED_PREFIXES,
    )
    model.load_state_dict(weights, assign=True, strict=False)  # load_weights is strict; the tied name is left out
    return TextEncoder(model, load_tokenizer(checkpoint.root, model.config.vocab_size))


def empty_model(checkpoint: Checkpoint) -> UMT5EncoderModel:
    """The encoder that text_encoder/config.json describes, without weights. Raises CheckpointError."""
    file = checkpoint.root / "text_encoder" / "config.json"
    try:
        config = AutoConfig.from_pretrained(file.parent, local_files_only=True, trust_remote_code=False)
        _check_sizes(file, config)
        if config.model_type == "umt5":
            with torch.device("meta"):
                model = UMT5EncoderModel(config)
    except CheckpointError:
        raise
    except Exception as error:  # the library raises whatever its parsers and layers raise
        raise CheckpointError(f"{file}: describes no encoder: {_one_line(error)}") from None
    if config.model_type != "umt5":
        raise CheckpointError(f"{file}: model_type: {config.model_type!r} is not allowed; allowed: umt5")
    if config.d_model != checkpoint.transformer.text_dim:
        allowed = f"{checkpoint.transformer.text_dim}, the transformer's text_dim"
        raise CheckpointError(f"{file}: d_model: {config.d_model!r} is not allowed; allowed: {allowed}")
    # published configurations say tie_word_embeddings: false and still store the shared table only
    model.encoder.set_input_embeddings(model.shared)
    return model


def _check_sizes(file: Path, config: Any) -> None:
    """Raises CheckpointError for sizes that no encoder has: the library would try to build them."""
    for name in ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size"):
        value, most = getattr(config, name, 1), MAX_VOCABULARY if name == "vocab_size" else largest(name)
        if not isinstance(value, int) or not 1 <= value <= most:
            allowed = f"an integer from 1 to {most:,}"
            raise CheckpointError(f"{file}: {name}: {shorten(value)} is not allowed; allowed: {allowed}")


def load_tokenizer(root: Path, vocab_size: int) -> Any:
    """The checkpoint's tokenizer, for an encoder with `vocab_size` embeddings. Raises CheckpointError."""
    folder = root / "tokenizer"
    if not any((folder / name).is_file() for name in VOCABULARIES):
        # the library would go on with a vocabulary of its own, in which every word is unknown
        raise CheckpointError(f"{folder}: is missing or holds none of {', '.join(VOCABULARIES)}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as above
        raise CheckpointError(f"{folder}: no tokenizer can be loaded from it: {_one_line(error)}") from None
    if len(tokenizer) > vocab_size:
        # a prompt could name such a token, and on a GPU a lookup beyond the table ends the process
        raise CheckpointError(f"{folder}: has {len(tokenizer)} tokens, more than the encoder's vocab_size {vocab_size}")
    return tokenizer


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
