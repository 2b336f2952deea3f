"""Validates a checkpoint from its JSON files and shard headers, without loading weights."""

from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path

import torch

from helios_engine.checkpoint.open import open_checkpoint
from helios_engine.checkpoint.weights import TensorInfo, compare, read_headers
from helios_engine.errors import CheckpointError

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
    """Checks every file. Raises CheckpointError listing all problems found, one a line."""
    from helios_engine.text import expected_tensors, load_tokenizer
    from helios_engine.transformer import HeliosTransformer
    from helios_engine.vae import IGNORED_PREFIXES, WanDecoder

    checkpoint = open_checkpoint(path)
    problems: list[str] = []
    components: list[ComponentReport] = []
    with torch.device("meta"):
        modules = {"transformer": HeliosTransformer(checkpoint.transformer), "vae": WanDecoder(checkpoint.vae)}
    expected = {
        name: {key: value.shape for key, value in module.named_parameters()} for name, module in modules.items()
    }
    ignored = {"vae": IGNORED_PREFIXES}
    try:
        expected["text_encoder"] = expected_tensors(checkpoint.root)
    except CheckpointError as error:
        problems.append(str(error))
    for name, tensors in expected.items():
        folder = checkpoint.root / name
        try:
            headers = read_headers(folder)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        problems += compare(folder, headers, tensors, ignored.get(name, ()))
        components.append(_report(name, headers))
    try:
        load_tokenizer(checkpoint.root)
    except CheckpointError as error:
        problems.append(str(error))
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
