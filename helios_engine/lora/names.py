"""What a key of an adapter file means: the layer of the DiT that it belongs to, and the part of that layer's update.

Sources: key formats that diffusers' `HeliosLoraLoaderMixin` and PEFT load, one prefix a file:
`transformer.` (diffusers pipelines), none (`save_lora_adapter`), `base_model.model.` (PEFT), and with the layer names
of Wan, from which Helios descends, `diffusion_model.` (Wan's repository, ComfyUI) and `lora_unet_` (musubi-tuner).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PREFIXES = ("base_model.model.", "transformer.", "diffusion_model.", "lora_unet_")

ENDINGS = {
    ".lora_A.weight": "down",
    ".lora_down.weight": "down",
    ".lora.down.weight": "down",
    ".lora_B.weight": "up",
    ".lora_up.weight": "up",
    ".lora.up.weight": "up",
    ".lora_B.bias": "bias",
    ".diff_b": "bias",
    ".alpha": "alpha",
    ".diff": "difference",
}
"""How a key ends, and the part of the update that it then holds."""

DORA_PARTS = ("lora_magnitude_vector", "dora_scale")

WAN_PARTS = (
    (".attn1.to_out.0", ".self_attn.o"),
    (".attn1.to_", ".self_attn."),
    (".attn2.to_out.0", ".cross_attn.o"),
    (".attn2.to_", ".cross_attn."),
    (".ffn.net.0.proj", ".ffn.0"),
    (".ffn.net.2", ".ffn.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("proj_out", "head.head"),
)
"""Parts of published layer names, and what Wan's own repository calls them. The first that occurs is replaced."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key's meaning. `layer` is None where the model has no such layer that an adapter could change."""

    layer: str | None
    part: str


def file_prefix(keys: Iterable[str]) -> str:
    """The prefix that the keys of a file should have: the first known one that any has, empty if none has one."""
    known = {prefix for key in keys for prefix in PREFIXES if key.startswith(prefix)}
    return next((prefix for prefix in PREFIXES if prefix in known), "")


def layer_names(published: Iterable[str], prefix: str) -> dict[str, str]:
    """The names that layers may have in a file of that prefix, each with the published name."""
    names = {name: name for name in published}
    if prefix in ("diffusion_model.", "lora_unet_"):
        names |= {_wan_name(name): name for name in names}
    if prefix == "lora_unet_":
        names = {alias.replace(".", "_"): name for alias, name in names.items()}
    return names


def parse_key(key: str, prefix: str, names: Mapping[str, str]) -> Key | None:
    """What the key means; None if it is not understood. names: as `layer_names` gives them."""
    if not key.startswith(prefix):
        return None
    rest = key.removeprefix(prefix)
    for ending, part in ENDINGS.items():
        if rest.endswith(ending):
            return Key(layer=names.get(rest.removesuffix(ending)), part=part)
    return None


def _wan_name(name: str) -> str:
    return next((name.replace(part, wan) for part, wan in WAN_PARTS if part in name), name)
