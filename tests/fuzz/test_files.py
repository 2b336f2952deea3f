"""Damaged files: pictures and clips against the sandboxed decoder, checkpoints against opening and loading.

Each gives a result or the documented error, within its time.
"""

import contextlib
import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from fuzz.cases import Edit, cases, edited, edits
from hypothesis import given
from hypothesis import strategies as st

from helios_engine.checkpoint.open import open_checkpoint
from helios_engine.checkpoint.weights import load_weights
from helios_engine.configs import TransformerConfig
from helios_engine.errors import CheckpointError
from helios_engine.loading.check import check_checkpoint
from helios_engine.loading.shapes import shapes
from helios_engine.model.transformer import HeliosTransformer
from helios_services.config import MediaConfig
from helios_services.media.errors import MediaError
from helios_services.media.inputs import decode_clip, decode_image
from services.media.files import HEIGHT, WIDTH, clip, gradient, steps, still

LIMITS = MediaConfig(decode_timeout_s=60.0, cpu_s=20)
OPEN_S = 60
"""More than any tiny checkpoint takes; what takes longer hangs."""
CONFIGS = (
    "model_index.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
)
SIZE = {"height": HEIGHT, "width": WIDTH}


class HangsError(BaseException):
    """No Exception: what catches those must not hide it."""


@contextmanager
def bounded(seconds: int) -> Iterator[None]:
    """Raises HangsError in the block after this long."""

    def late(_number: int, _frame: FrameType | None) -> None:
        raise HangsError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def media() -> dict[str, bytes]:
    return {
        "image/png": still(gradient()),
        "image/jpeg": still(gradient(), "JPEG"),
        "video/mp4": clip(steps(40)),
    }


@pytest.mark.parametrize("content_type", ["image/png", "image/jpeg", "video/mp4"])
def test_damaged_media(media: dict[str, bytes], content_type: str) -> None:
    refusals: list[str] = []

    @cases(0.015)
    @given(changes=edits())
    def attempt(changes: list[Edit]) -> None:
        data = edited(media[content_type], changes, keep=16)
        try:
            if content_type == "video/mp4":
                decode_clip(data, content_type, **SIZE, fps=24, keep_last=33, limits=LIMITS)
            else:
                assert decode_image(data, content_type, **SIZE, limits=LIMITS).shape == (HEIGHT, WIDTH, 3)
        except MediaError as error:
            refusals.append(error.message)

    attempt()
    assert refusals
    assert max(map(len, refusals)) < 300


LARGE = st.sampled_from((1, 2, 24, 1000, 10**6, 2**31, 2**63, 10**30))
JSON = LARGE | st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 200)
    | st.sampled_from((0, -1, 2**31, 2**63, 10**30, 0.0, -0.5, 1e308, float("nan"), float("inf"), "", "a\0b", "../x"))
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, folder)
    return folder


@contextmanager
def damaged(file: Path, content: bytes) -> Iterator[None]:
    """The file with other content; afterwards as before."""
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


def attempt_to_open(folder: Path) -> None:
    with bounded(OPEN_S), contextlib.suppress(CheckpointError):
        check_checkpoint(folder)


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_with_other_values(copied: Path, name: str) -> None:
    file = copied / name
    values: dict[str, Any] = json.loads(file.read_text())

    def other(name: str) -> st.SearchStrategy[tuple[str, Any]]:
        """Anything, or something of the type that is there."""
        value = values.get(name)
        same = st.lists(LARGE, min_size=len(value), max_size=len(value)) if isinstance(value, list) else LARGE
        return st.tuples(st.just(name), same | JSON)

    names = st.sampled_from(sorted(values)) | st.text(max_size=5)

    @cases(0.012)
    @given(changes=st.lists(names.flatmap(other), min_size=1, max_size=2))
    def attempt(changes: list[tuple[str, Any]]) -> None:
        with damaged(file, json.dumps(values | dict(changes)).encode()):
            attempt_to_open(copied)

    attempt()
    assert check_checkpoint(copied).variant == "distilled"


@pytest.mark.parametrize("name", CONFIGS)
def test_damaged_configurations(copied: Path, name: str) -> None:
    file = copied / name
    text = file.read_bytes()

    @cases(0.006)
    @given(changes=edits())
    def attempt(changes: list[Edit]) -> None:
        with damaged(file, edited(text, changes)):
            attempt_to_open(copied)

    attempt()


def test_damaged_weights(copied: Path) -> None:
    """Header or data: what is read is whole, or refused. Damage to the data alone shows in a SHA256SUMS only."""
    folder = copied / "transformer"
    expected = expected_of(open_checkpoint(copied).transformer)
    file = sorted(folder.glob("*.safetensors"))[0]
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")

    @cases(0.05)
    @given(changes=edits(), everywhere=st.booleans())
    def attempt(changes: list[Edit], everywhere: bool) -> None:
        data = edited(whole, changes) if everywhere else edited(whole[:header], changes) + whole[header:]
        with damaged(file, data), bounded(OPEN_S), contextlib.suppress(CheckpointError):
            loaded = load_weights(folder, expected, device="cpu", dtype_of=lambda _: torch.float32)
            assert {name: tensor.shape for name, tensor in loaded.items()} == expected

    attempt()
    load_weights(folder, expected, device="cpu", dtype_of=lambda _: torch.float32)


def expected_of(config: TransformerConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return shapes(HeliosTransformer(config))
