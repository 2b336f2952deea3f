"""Opens a checkpoint folder: which model it is, and its components' configurations."""

import json
from dataclasses import MISSING, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from helios_engine.configs import SchedulerConfig, TransformerConfig, VAEConfig
from helios_engine.errors import CheckpointError, shorten

Config = TypeVar("Config")

CLASSES = {
    "transformer": ("HeliosTransformer3DModel",),
    "vae": ("AutoencoderKLWan",),
    "scheduler": ("HeliosDMDScheduler", "HeliosScheduler"),
    "text_encoder": ("UMT5EncoderModel",),
    "tokenizer": ("T5Tokenizer", "T5TokenizerFast"),
}
PIPELINES = ("HeliosPipeline", "HeliosPyramidPipeline")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """An opened checkpoint folder. `scheduler` is None unless the variant is "distilled"."""

    root: Path
    variant: str
    transformer: TransformerConfig
    vae: VAEConfig
    scheduler: SchedulerConfig | None


def open_checkpoint(path: str | PathLike[str]) -> Checkpoint:
    """Reads the JSON files of a checkpoint folder. Raises CheckpointError naming the file and key that is wrong."""
    root = Path(path)
    if not root.is_dir():
        raise CheckpointError(f"{root}: is not a folder; expected a checkpoint in the diffusers layout")
    index = read_json(root / "model_index.json")
    pipeline = index.get("_class_name")
    _allow(root / "model_index.json", "_class_name", pipeline, PIPELINES)
    for component, classes in CLASSES.items():
        entry = index.get(component)
        name = entry[1] if isinstance(entry, list) and len(entry) == 2 else entry
        _allow(root / "model_index.json", component, name, classes)
    distilled = bool(index.get("is_distilled"))
    if distilled != (index["scheduler"][1] == "HeliosDMDScheduler"):
        raise CheckpointError(
            f"{root / 'model_index.json'}: is_distilled: {distilled} does not go with scheduler "
            f"{index['scheduler'][1]!r}"
        )
    variant = "distilled" if distilled else "mid" if pipeline == "HeliosPyramidPipeline" else "base"
    return Checkpoint(
        root=root,
        variant=variant,
        transformer=read_config(root / "transformer" / "config.json", "transformer", TransformerConfig),
        vae=read_config(root / "vae" / "config.json", "vae", VAEConfig),
        scheduler=read_config(root / "scheduler" / "scheduler_config.json", "scheduler", SchedulerConfig)
        if distilled
        else None,
    )


def read_config(file: Path, component: str, kind: type[Config]) -> Config:
    """A component's configuration. Keys that Helios does not know are ignored, as the reference ignores them."""
    values = read_json(file)
    _allow(file, "_class_name", values.get("_class_name"), CLASSES[component])
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
    """A JSON object. Raises CheckpointError."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{file}: is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: holds {type(values).__name__}, expected an object")
    return values


def _allow(file: Path, key: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise CheckpointError(f"{file}: {key}: {shorten(value)} is not supported; allowed: {', '.join(allowed)}")


def _typed(file: Path, key: str, value: Any, hint: Any) -> Any:
    """Checks a JSON value against a field's type; lists become tuples, integers pass for floats."""
    args = get_args(hint)
    if get_origin(hint) is tuple:
        expected = args[0]
        if isinstance(value, list) and all(_is(item, expected) for item in value):
            return tuple(expected(item) for item in value)
    elif type(None) in args:
        if value is None or any(_is(value, kind) for kind in args if kind is not type(None)):
            return value
    elif _is(value, hint):
        return hint(value)
    raise CheckpointError(f"{file}: {key}: {shorten(value)} is not allowed; allowed: {getattr(hint, '__name__', hint)}")


def _is(value: Any, kind: type) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)
