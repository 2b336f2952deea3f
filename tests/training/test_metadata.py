"""The reference's metadata: read as it is, refused by entry and field."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from helios_engine.vae.encoder import WanEncoder
from helios_training.data.encode import encode_metadata
from helios_training.data.latents import read_latents
from helios_training.data.metadata import read_metadata
from helios_training.errors import TrainingError
from helios_training.small.sizes import small_vae


def entry(**changed: Any) -> dict[str, Any]:
    values = {
        "cut": [2, 40],
        "crop": [16, 48, 0, 16],
        "fps": 24.0,
        "num_frames": 40,
        "resolution": {"height": 32, "width": 64},
        "cap": ["a grey ramp gets brighter"],
        "path": "ramp.mp4",
    }
    return {name: value for name, value in (values | changed).items() if value is not None}


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    """A video whose n-th frame has the level 5 n, and darker columns to the left."""
    with av.open(str(tmp_path / "ramp.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for number in range(40):
            picture = np.full((32, 64, 3), 5 * number + 20, dtype=np.uint8)
            picture[:, :16] = 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return tmp_path


def write(folder: Path, *entries: Any) -> Path:
    file = folder / "metadata.json"
    file.write_text(json.dumps(list(entries)))
    return file


def test_a_clip_is_cut_and_cropped(ramp: Path) -> None:
    (clip,) = read_metadata(write(ramp, entry()))
    frames = clip.frames()
    assert frames.shape == (33, 16, 32, 3)  # whole sections; the black columns are cropped away
    assert [int(frame.mean()) for frame in frames[[0, 10, 32]]] == pytest.approx([30, 80, 190], abs=4)
    assert clip.caption == "a grey ramp gets brighter"


def test_clips_are_encoded_once(ramp: Path) -> None:
    torch.manual_seed(0)
    encoder, file = WanEncoder(small_vae()).eval(), write(ramp, entry())
    (written,) = encode_metadata(encoder, file, ramp / "latents")
    assert written.name == "ramp-2_33_16_32.safetensors"
    assert read_latents(written).caption == "a grey ramp gets brighter"
    assert list(encode_metadata(encoder, file, ramp / "latents")) == []


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"cut": [0, 32]}, r"cut: \[0, 32\] is not allowed; allowed: 33 frames or more"),
        ({"cut": [0]}, r"cut: \[0\] is not allowed; allowed: 2 integers"),
        ({"crop": [0, 30, 0, 16]}, r"crop: .* allowed: a positive multiple of 16 columns"),
        ({"crop": [0, 32, 16, 16]}, r"crop: .* allowed: a positive multiple of 16 rows"),
        ({"cap": None}, "cap: None is not allowed"),
        ({"cap": ["  "]}, "cap: .* allowed: a list whose first entry is the caption"),
        ({"path": "gone.mp4"}, "path: 'gone.mp4' is not allowed"),
    ],
)
def test_a_wrong_field_is_named(ramp: Path, changed: dict[str, Any], named: str) -> None:
    with pytest.raises(TrainingError, match=f"metadata.json: clip 1: {named}"):
        read_metadata(write(ramp, entry(), entry(**changed)))


def test_a_video_that_is_too_short_or_none_is_named(ramp: Path) -> None:
    (clip,) = read_metadata(write(ramp, entry(cut=[20, 60])))
    with pytest.raises(TrainingError, match=r"ramp.mp4: has 20 frames from 20 on; the metadata says 33"):
        clip.frames()
    (ramp / "text.mp4").write_text("no video")
    (clip,) = read_metadata(write(ramp, entry(path="text.mp4")))
    with pytest.raises(TrainingError, match=r"text.mp4: cannot be decoded"):
        clip.frames()


@pytest.mark.parametrize(
    ("text", "named"), [("{", "is no JSON file"), ("[]", "no list of clips"), ("[3]", "clip 0: 3")]
)
def test_a_file_that_is_no_list_is_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "metadata.json"
    file.write_text(text)
    with pytest.raises(TrainingError, match=named):
        read_metadata(file)
