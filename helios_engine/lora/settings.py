"""An adapter's settings: rank and alpha of each layer.

Source: `LoraConfig` (PEFT), which diffusers writes into the file's header (`lora_adapter_metadata`) and PEFT into
`adapter_config.json`; defaults, patterns and scaling as PEFT has them (`get_pattern_key`, `LoraLayer.update_layer`).
"""

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from helios_engine.errors import CheckpointError, shorten

Number = TypeVar("Number", int, float)

DEFAULT_RANK = DEFAULT_ALPHA = 8
"""PEFT's defaults of `r` and `lora_alpha`."""

USED = frozenset({"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_bias"})
HARMLESS = frozenset(
    {"task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"}
    | {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "ensure_weight_tying"}
    | {"lora_dropout", "fan_in_fan_out", "megatron_core", "qalora_group_size", "runtime_config"}
    | {"loftq_config", "eva_config", "corda_config", "lora_ga_config"}
)
"""Settings that say how the adapter was trained or where its layers are, which its tensors say too."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    # others change the base weights when PEFT loads the adapter, so that A and B alone are not the update
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}
"""Settings that have more than one value under which the update is B @ A times a scale."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one adapter. `source` names them in errors."""

    source: str
    rank: int
    alpha: float
    rank_pattern: Mapping[re.Pattern[str], int]
    alpha_pattern: Mapping[re.Pattern[str], float]
    use_rslora: bool
    lora_bias: bool

    def rank_of(self, layer: str) -> int:
        """Rank of the layer's update."""
        return _matching(self.rank_pattern, layer, self.rank)

    def scaling_of(self, layer: str) -> float:
        """alpha / rank, or with rank-stabilised LoRA alpha / sqrt(rank)."""
        rank = self.rank_of(layer)
        return _matching(self.alpha_pattern, layer, self.alpha) / (math.sqrt(rank) if self.use_rslora else rank)


def parse_settings(values: Mapping[str, Any], source: str) -> Settings:
    """Checks `LoraConfig` values. Raises CheckpointError naming each setting that is wrong or not supported."""
    problems: list[str] = []

    def read(key: str, default: Any, allowed: str) -> Any:
        value = values.get(key, default)
        if _CHECKS[allowed](value):
            return value
        problems.append(_not_allowed(source, key, value, allowed))
        return default

    settings = Settings(
        source=source,
        rank=read("r", DEFAULT_RANK, RANK),
        alpha=read("lora_alpha", DEFAULT_ALPHA, ALPHA),
        rank_pattern=_compiled(read("rank_pattern", None, RANKS)),
        alpha_pattern=_compiled(read("alpha_pattern", None, ALPHAS)),
        use_rslora=read("use_rslora", False, BOOL),
        lora_bias=read("lora_bias", False, BOOL),
    )
    for key, value in values.items():
        if key == "use_dora" and value:
            problems.append(_not_allowed(source, key, value, "false; DoRA adapters are not supported"))
        elif key in NEUTRAL:
            if not any(value is allowed or (isinstance(value, str) and value == allowed) for allowed in NEUTRAL[key]):
                problems.append(_not_allowed(source, key, value, ", ".join(map(repr, NEUTRAL[key]))))
        elif key not in USED | HARMLESS and value not in (None, False, [], {}):
            problems.append(_not_allowed(source, key, value, "null or false; it is not supported"))
    if problems:
        raise CheckpointError("\n".join(problems))
    return settings


def is_number(value: object) -> bool:
    """A finite int or float, but no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_map(value: Any, is_item: Callable[[object], bool]) -> bool:
    if value is None:
        return True
    try:
        return len(_compiled(value)) == len(value) and all(is_item(item) for item in value.values())
    except (AttributeError, re.error, RecursionError):
        return False


RANK, ALPHA, BOOL = "an integer above 0", "a finite number", "true or false"
RANKS, ALPHAS = (f"an object from layer names or regular expressions to {kind}" for kind in (RANK, ALPHA))
_CHECKS: dict[str, Callable[[object], bool]] = {
    RANK: _is_rank,
    ALPHA: is_number,
    BOOL: _is_bool,
    RANKS: lambda value: _is_map(value, _is_rank),
    ALPHAS: lambda value: _is_map(value, is_number),
}


def _compiled(pattern: dict[str, Number] | None) -> dict[re.Pattern[str], Number]:
    """Expressions that match the end of a layer's name, from a dot on or as a whole, in the given order."""
    return {re.compile(rf"(.*\.)?({key})$"): value for key, value in (pattern or {}).items()}


def _matching(pattern: Mapping[re.Pattern[str], Number], layer: str, default: Number) -> Number:
    """The value of the first expression that matches."""
    return next((value for key, value in pattern.items() if key.match(layer)), default)


def _not_allowed(source: str, key: str, value: object, allowed: str) -> str:
    return f"{source}: {key}: {shorten(value)} is not allowed; allowed: {allowed}"
