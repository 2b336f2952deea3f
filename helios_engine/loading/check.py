"""Validates a checkpoint from its JSON files and shard headers, without loading weights."""

from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path

from helios_engine.checkpoint.open import open_checkpoint
from helios_engine.checkpoint.weights import TensorInfo, compare, read_headers
from helios_engine.errors import CheckpointError
from helios_engine.loading.shapes import shapes, transformer_shapes, vae_shapes
from helios_engine.loading.text import TIED_PREFIXES, empty_model, load_tokenizer

BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, kw_only=True)
class ComponentReport:
    """What a component holds."""

    name: str
    tensors: int
    parameters: int
    bytes: int
    dtypes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """A sound checkpoint's variant and components."""

    root: Path
    variant: str
    components: tuple[ComponentReport, ...]


def check_checkpoint(path: str | PathLike[str]) -> CheckReport:
    """Checks every file. Raises CheckpointError listing all problems found, one a line.

    Weights are held against what the configurations describe, so configurations have to be sound first.
    """
    checkpoint = open_checkpoint(path)
    problems: list[str] = []
    components: list[ComponentReport] = []
    expected = {"transformer": transformer_shapes(checkpoint.transformer), "vae": vae_shapes(checkpoint.vae)}
    try:
        text_encoder = empty_model(checkpoint)
        expected["text_encoder"] = shapes(text_encoder)
        load_tokenizer(checkpoint.root, text_encoder.config.vocab_size)
    except CheckpointError as error:
        problems.append(str(error))
    for name, tensors in expected.items():
        folder = checkpoint.root / name
        try:
            headers = read_headers(folder)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        problems += compare(folder, headers, tensors, TIED_PREFIXES if name == "text_encoder" else ())
        components.append(_report(name, headers))
    if problems:
        raise CheckpointError("\n".join(problems))
    return CheckReport(root=checkpoint.root, variant=checkpoint.variant, components=tuple(components))


def _report(name: str, headers: dict[str, TensorInfo]) -> ComponentReport:
    sizes = [(prod(info.shape), BYTES.get(info.dtype, 1)) for info in headers.values()]
    return ComponentReport(
        name=name,
        tensors=len(headers),
        parameters=sum(count for count, _ in sizes),
        bytes=sum(count * width for count, width in sizes),
        dtypes=tuple(sorted({info.dtype for info in headers.values()})),
    )
