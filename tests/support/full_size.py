"""The published model's sizes, without weights: for plans."""

import json
from pathlib import Path

from benchmarks.published import needs_of
from benchmarks.sizes import SIZES
from helios_engine.loading.tiny import write_tiny
from helios_engine.options import VariantName
from helios_engine.planning.needs import Needs

FULL = SIZES["gpu-full"]
TEXT = {
    "vocab_size": FULL.text.vocab_size,
    "d_model": FULL.text.d_model,
    "d_ff": FULL.text.d_ff,
    "num_layers": FULL.text.layers,
    "num_heads": FULL.text.heads,
    "d_kv": FULL.text.d_kv,
    "feed_forward_proj": "gated-gelu",
}


def full_size_needs(*, guided: bool = False) -> Needs:
    """What the published 14 B model needs."""
    return needs_of(FULL, guided=guided)


def write_full_size(folder: Path, variant: VariantName = "distilled") -> None:
    """A checkpoint whose configurations are the published ones; its weights are not theirs."""
    write_tiny(folder, variant=variant)
    _change(
        folder / "transformer" / "config.json",
        {
            "num_attention_heads": FULL.transformer.num_attention_heads,
            "attention_head_dim": FULL.transformer.attention_head_dim,
            "text_dim": FULL.transformer.text_dim,
            "freq_dim": FULL.transformer.freq_dim,
            "ffn_dim": FULL.transformer.ffn_dim,
            "num_layers": FULL.transformer.num_layers,
            "rope_dim": FULL.transformer.rope_dim,
        },
    )
    _change(folder / "vae" / "config.json", {"base_dim": FULL.vae.base_dim, "num_res_blocks": FULL.vae.num_res_blocks})
    _change(folder / "text_encoder" / "config.json", TEXT)


def _change(file: Path, values: dict[str, object]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
