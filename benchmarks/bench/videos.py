"""The folder of videos: `MODEL/{id}_{duration}_ori{frames}.mp4`, which the reference's scripts score as it stands.

Beside each video a JSON says how long it took. A video appears whole or not at all, so that a run that was cut goes on.
"""

import io
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.bench.prompts import Prompt

Frames = NDArray[np.uint8]
ABOUT = "about.json"


@dataclass(frozen=True, kw_only=True)
class Made:
    """How a video came. seconds: from the request to its last chunk. frames: delivered, before it was cut."""

    seconds: float
    first_chunk_s: float
    frames: int


def begin(folder: Path, about: Mapping[str, Any]) -> None:
    """Makes a folder for videos that are made in one way. Raises ValueError if others are there."""
    file = folder / ABOUT
    folder.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        file.write_text(json.dumps(dict(about), indent=2) + "\n")
        return
    before = json.loads(file.read_text())
    for name, value in json.loads(json.dumps(dict(about))).items():
        if before.get(name) != value:
            raise ValueError(
                f"{file}: {name}: {before.get(name)!r} made the videos that are there, not {value!r}; "
                "allowed: the same, or another --folder"
            )


def write_video(folder: Path, prompt: Prompt, pieces: Iterable[tuple[bytes, int]]) -> Made:
    """Makes a video and cuts it to its length.

    pieces: the init segment and fragments of an fMP4, each with its number of frames. Raises ValueError if it is too
    short.
    """
    start, arrivals, data, frames = time.perf_counter(), [], [], 0
    for piece, count in pieces:
        data.append(piece)
        frames += count
        if count:
            arrivals.append(time.perf_counter() - start)
    if frames < prompt.frames:
        raise ValueError(f"{prompt.stem}: {frames} frames came; allowed: at least {prompt.frames}")
    made = Made(seconds=arrivals[-1], first_chunk_s=arrivals[0], frames=frames)
    (folder / f"{prompt.stem}.json").write_text(json.dumps(asdict(made) | {"prompt": prompt.text}, indent=2) + "\n")
    unfinished = folder / f".{prompt.stem}.{os.getpid()}"
    _cut(b"".join(data), unfinished, prompt.frames)
    unfinished.replace(video_of(folder, prompt))
    return made


def video_of(folder: Path, prompt: Prompt) -> Path:
    """Where the prompt's video is, or will be."""
    return folder / f"{prompt.stem}.mp4"


def read_made(folder: Path, prompt: Prompt) -> Made:
    """What was written down when the video was made."""
    facts = json.loads((folder / f"{prompt.stem}.json").read_text())
    return Made(**{name: facts[name] for name in ("seconds", "first_chunk_s", "frames")})


def read_frames(file: Path) -> Frames:
    """All frames, (T, H, W, 3) uint8.

    Converted here: libswscale's fast conversion makes every channel darker by a level.
    """
    with av.open(str(file)) as video:
        return np.stack([_rgb(frame.to_ndarray(format="yuv420p")) for frame in video.decode(video=0)])


def _rgb(planes: Frames) -> Frames:
    """(3H/2, W), BT.709 in limited range, to (H, W, 3)."""
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    luma = (planes[:height].astype(np.float32) - 16.0) / 219.0
    halves = planes[height:].reshape(2, height // 2, width // 2).astype(np.float32)
    blue, red = (
        (cv2.resize(half, (width, height), interpolation=cv2.INTER_NEAREST) - 128.0) / 224.0 for half in halves
    )
    pixels = np.stack([luma + 1.5748 * red, luma - 0.1873 * blue - 0.4681 * red, luma + 1.8556 * blue], axis=-1)
    levels: Frames = np.round(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)
    return levels


def _cut(data: bytes, target: Path, frames: int) -> None:
    """The first frames as an MP4, not encoded again: chunks have no frames that wait for later ones."""
    with (
        av.open(io.BytesIO(data), "r", format="mp4") as whole,
        av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as file,
    ):
        incoming = whole.streams.video[0]
        outgoing = file.add_stream_from_template(incoming)
        for number, packet in enumerate(whole.demux(incoming)):
            if number == frames:
                break
            packet.stream = outgoing
            file.mux(packet)
