"""The reference's metadata: a JSON list of clips of video files, each checked before anything is decoded.

{"cut": [a, b), "crop": [x0, x1, y0, y1], "fps", "num_frames", "resolution": {"height", "width"}, "cap": [text], "path"}
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helios_engine.request import FRAMES_PER_CHUNK
from helios_training.errors import TrainingError

SIZE_MULTIPLE = 16


@dataclass(frozen=True, kw_only=True)
class ClipEntry:
    """Frames first … last of a video file, cropped to rows and columns of pixels, and its caption."""

    path: Path
    first: int
    last: int
    left: int
    right: int
    top: int
    bottom: int
    caption: str

    @property
    def clip_id(self) -> str:
        """A name for its latents."""
        return f"{self.path.stem}-{self.first}"

    def frames(self) -> NDArray[np.uint8]:
        """(T, H, W, 3), whole sections only. Raises TrainingError for a file that cannot be decoded so far."""
        import av

        wanted = (self.last - self.first) // FRAMES_PER_CHUNK * FRAMES_PER_CHUNK
        kept: list[NDArray[np.uint8]] = []
        try:
            with av.open(str(self.path)) as container:
                for number, frame in enumerate(container.decode(video=0)):
                    if number >= self.first:
                        picture = frame.to_ndarray(format="rgb24")
                        kept.append(picture[self.top : self.bottom, self.left : self.right])
                    if len(kept) == wanted:
                        break
        except (av.FFmpegError, OSError) as error:
            raise TrainingError(f"{self.path}: cannot be decoded: {error}") from None
        if len(kept) < wanted:
            raise TrainingError(f"{self.path}: has {len(kept)} frames from {self.first} on; the metadata says {wanted}")
        return np.stack(kept)


def read_metadata(file: Path) -> list[ClipEntry]:
    """The clips in the file's order; paths are relative to the file. Raises TrainingError naming entry and field."""
    try:
        entries = json.loads(file.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TrainingError(f"{file}: is no JSON file: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise TrainingError(f"{file}: holds no list of clips")
    return [_entry(file, number, entry) for number, entry in enumerate(entries)]


def _entry(file: Path, number: int, entry: Any) -> ClipEntry:
    where = f"{file}: clip {number}"
    if not isinstance(entry, dict):
        raise TrainingError(f"{where}: {entry!r} is not allowed; allowed: an object")
    first, last = _integers(where, entry, "cut", 2)
    left, right, top, bottom = _integers(where, entry, "crop", 4)
    if last - first < FRAMES_PER_CHUNK:
        raise TrainingError(f"{where}: cut: {[first, last]} is not allowed; allowed: {FRAMES_PER_CHUNK} frames or more")
    for name, low, high in (("columns", left, right), ("rows", top, bottom)):
        if high <= low or (high - low) % SIZE_MULTIPLE:
            allowed = f"a positive multiple of {SIZE_MULTIPLE} {name}"
            raise TrainingError(f"{where}: crop: {[left, right, top, bottom]} is not allowed; allowed: {allowed}")
    captions, path = entry.get("cap"), entry.get("path")
    if not isinstance(captions, list) or not captions or not isinstance(captions[0], str) or not captions[0].strip():
        raise TrainingError(
            f"{where}: cap: {captions!r} is not allowed; allowed: a list whose first entry is the caption"
        )
    if not isinstance(path, str) or not (file.parent / path).is_file():
        raise TrainingError(f"{where}: path: {path!r} is not allowed; allowed: a file, relative to {file.parent}")
    return ClipEntry(
        path=file.parent / path,
        first=first,
        last=last,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        caption=captions[0],
    )


def _integers(where: str, entry: dict[str, Any], field: str, count: int) -> list[int]:
    values = entry.get(field)
    sound = isinstance(values, list) and len(values) == count and all(type(v) is int and v >= 0 for v in values)
    if not sound or not isinstance(values, list):
        raise TrainingError(f"{where}: {field}: {values!r} is not allowed; allowed: {count} integers from 0 on")
    return values
