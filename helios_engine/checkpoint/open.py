"""Opens a checkpoint folder: which model it is, and its components' configurations."""

import json
import sys
from dataclasses import MISSING, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from helios_engine.checkpoint.resolve import resolve_checkpoint
from helios_engine.configs import PYRAMID_STAGES, SchedulerConfig, SolverConfig, TransformerConfig, VAEConfig
from helios_engine.errors import CheckpointError, shorten
from helios_engine.options import VariantName

Config = TypeVar("Config")

CLASSES = {
    "transformer": ("HeliosTransformer3DModel",),
    "vae": ("AutoencoderKLWan",),
    "scheduler": ("HeliosDMDScheduler", "HeliosScheduler"),
    "text_encoder": ("UMT5EncoderModel",),
    "tokenizer": ("T5Tokenizer", "T5TokenizerFast"),
}
PIPELINES = ("HeliosPipeline", "HeliosPyramidPipeline")
POSITIVE = frozenset({"eps", "rope_theta", "latents_std", "shift", "gamma"})
"""Numbers that must exceed zero; integers always must, being sizes and counts, except those that are indices."""
INDICES = frozenset({"disable_corrector"})
MAX_SIZE, MAX_COUNT = 1 << 18, 512
"""The largest integers of a configuration. Beyond, sizes of tensors overflow, or building the layers takes forever."""
MAX_JSON_BYTES = 1 << 25
"""The largest configuration or index that is read; the published ones have at most 0.2 MB."""
COUNTS = frozenset({"num_layers", "num_attention_heads", "num_res_blocks", "dim_mult", "num_heads"})


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """An opened checkpoint folder. scheduler: a SolverConfig unless the variant is "distilled"."""

    root: Path
    variant: VariantName
    transformer: TransformerConfig
    vae: VAEConfig
    scheduler: SchedulerConfig
    cfg_zero_star: bool


def open_checkpoint(path: str | PathLike[str]) -> Checkpoint:
    """Reads the JSON files of a checkpoint: a folder, or an id on the Hub.

    Raises CheckpointError naming each file and key that is wrong, one a line.
    """
    root = resolve_checkpoint(path)
    index = root / "model_index.json"
    variant, scheduler_class, cfg_zero_star = _variant(index)
    problems: list[str] = []

    def read(file: str, class_name: str, kind: type[Config]) -> Config | None:
        try:
            return read_config(root / file, class_name, kind)
        except CheckpointError as error:
            problems.append(str(error))
            return None

    transformer = read("transformer/config.json", "HeliosTransformer3DModel", TransformerConfig)
    vae = read("vae/config.json", "AutoencoderKLWan", VAEConfig)
    kind = SchedulerConfig if variant == "distilled" else SolverConfig
    scheduler: SchedulerConfig | None = read("scheduler/scheduler_config.json", scheduler_class, kind)
    if scheduler is not None and (scheduler.stages == 1) != (variant == "base"):
        file, allowed = root / "scheduler/scheduler_config.json", 1 if variant == "base" else PYRAMID_STAGES
        problems.append(_not_allowed(file, "stages", scheduler.stages, f"{allowed} for variant {variant!r}"))
    if problems or transformer is None or vae is None or scheduler is None:
        raise CheckpointError("\n".join(problems))
    return Checkpoint(
        root=root,
        variant=variant,
        transformer=transformer,
        vae=vae,
        scheduler=scheduler,
        cfg_zero_star=cfg_zero_star,
    )


def _variant(file: Path) -> tuple[VariantName, str, bool]:
    """The variant that model_index.json describes, its scheduler's class, and whether guidance is CFG-Zero*."""
    index = read_json(file)
    pipeline, distilled = index.get("_class_name"), index.get("is_distilled", False)
    zero_star = index.get("is_cfg_zero_star", False)
    problems = [_not_allowed(file, "_class_name", pipeline, ", ".join(PIPELINES))] if pipeline not in PIPELINES else []
    for component, classes in CLASSES.items():
        entry = index.get(component)
        if not isinstance(entry, list) or len(entry) != 2:
            allowed = f"[library, class] with class one of {', '.join(classes)}"
            problems.append(_not_allowed(file, component, entry, allowed))
        elif entry[1] not in classes:
            problems.append(_not_allowed(file, component, entry[1], ", ".join(classes)))
    for key, flag in (("is_distilled", distilled), ("is_cfg_zero_star", zero_star)):
        if not isinstance(flag, bool):
            problems.append(_not_allowed(file, key, flag, "true, false"))
    if problems:
        raise CheckpointError("\n".join(problems))
    scheduler_class = str(index["scheduler"][1])
    if distilled != (scheduler_class == "HeliosDMDScheduler"):
        raise CheckpointError(f"{file}: is_distilled: {distilled} does not go with scheduler {scheduler_class!r}")
    pyramid = pipeline == "HeliosPyramidPipeline"
    return "distilled" if distilled else "mid" if pyramid else "base", scheduler_class, zero_star and pyramid


def read_config(file: Path, class_name: str, kind: type[Config]) -> Config:
    """Reads a component's configuration. Raises CheckpointError naming the file and the key.

    Keys that Helios does not know are ignored, as the reference ignores them.
    """
    values = read_json(file)
    if values.get("_class_name") != class_name:
        raise CheckpointError(_not_allowed(file, "_class_name", values.get("_class_name"), class_name))
    hints = get_type_hints(kind)
    known: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in values:
            known[field.name] = _typed(file, field.name, values[field.name], hints[field.name])
        elif field.default is MISSING:
            raise CheckpointError(f"{file}: {field.name}: is missing")
    try:
        return kind(**known)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}") from None


def read_json(file: Path) -> dict[str, Any]:
    """Reads a JSON object. Raises CheckpointError naming the file and what is wrong."""
    try:
        if file.exists() and not file.is_file():  # a pipe would never end
            raise CheckpointError(f"{file}: is no file")
        if (size := file.stat().st_size) > MAX_JSON_BYTES:
            raise CheckpointError(f"{file}: has {size:,} bytes; allowed: at most {MAX_JSON_BYTES:,}")
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: holds {type(values).__name__}, expected an object")
    return values


def _not_allowed(file: Path, key: str, value: object, allowed: str) -> str:
    return f"{file}: {key}: {shorten(value)} is not allowed; allowed: {allowed}"


def _typed(file: Path, key: str, value: Any, hint: Any) -> Any:
    """Checks a JSON value against a field's type and sign; lists become tuples, integers pass for floats."""
    args = get_args(hint)
    if get_origin(hint) is tuple:
        item, length = args[0], None if args[-1] is Ellipsis else len(args)
        right_length = isinstance(value, list) and length in (None, len(value))
        if right_length and all(_is(entry, item, key) for entry in value):
            return tuple(item(entry) for entry in value)
        size = "" if length is None else f"{length}: each "
        raise CheckpointError(_not_allowed(file, key, value, f"a list of {size}{_allowed(item, key)}"))
    nullable = type(None) in args
    kind = next(arg for arg in args if arg is not type(None)) if nullable else hint
    if nullable and value is None:
        return None
    if not _is(value, kind, key):
        raise CheckpointError(_not_allowed(file, key, value, _allowed(kind, key) + (", or null" if nullable else "")))
    return kind(value)


def _is(value: Any, kind: type, key: str) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is str:
        return isinstance(value, str)
    if not isinstance(value, int if kind is int else int | float):
        return False
    if kind is int:
        return bool((0 if key in INDICES else 1) <= value <= largest(key))
    return abs(value) <= sys.float_info.max and (value > 0 or key not in POSITIVE)


def largest(key: str) -> int:
    """What an integer of this name may be at most."""
    return MAX_COUNT if key in COUNTS else MAX_SIZE


def _allowed(kind: type, key: str) -> str:
    if kind is float:
        return "a finite number above 0" if key in POSITIVE else "a finite number"
    if kind is int:
        return f"an integer from {0 if key in INDICES else 1} to {largest(key):,}"
    return {bool: "true or false", str: "text"}[kind]
