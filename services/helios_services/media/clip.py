"""Decodes a clip with PyAV. Runs in the sandbox."""

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from helios_services.media.clip_file import (
    check_duration,
    check_frames,
    damaged,
    open_clip,
    pixel_aspect,
    too_many_pixels,
    video_stream,
)
from helios_services.media.cut_off import is_cut_off
from helios_services.media.errors import MediaReason, refused
from helios_services.media.frame import Pixels, picture_of
from helios_services.media.resample import Resampler
from helios_services.media.wire import ClipJob


class Picture:
    """A frame, made into (H, W, 3) when it is first asked for."""

    def __init__(self, frame: Any, job: ClipJob, pixel_aspect: float) -> None:
        self._frame, self._job, self._aspect = frame, job, pixel_aspect
        self._pixels: Pixels | None = None

    def pixels(self) -> Pixels:
        """(H, W, 3); the decoder's frame is let go."""
        if self._pixels is None:
            self._pixels = picture_of(self._frame, self._job, self._aspect)
            self._frame = None
        return self._pixels


def decode_clip_frames(data: bytes, content_type: str, job: ClipJob) -> tuple[Pixels, list[Pixels], int]:
    """The first frame, the last `keep_last` (fewer if the clip is shorter), and the number of frames at job.fps.

    Raises MediaError, and whatever PyAV raises for broken data.
    """
    if is_cut_off(data, content_type):
        raise damaged()
    expected = int(_survey(data, content_type, job) * job.fps)
    first, tail, count = _pass(data, content_type, job, wanted=expected - job.keep_last)
    if not all(picture is not None for picture in tail):  # the clip ends before its packets said
        first, tail, count = _pass(data, content_type, job, wanted=0)
    if count < job.min_frames or first is None:
        found, allowed = f"{count} frames at {job.fps} frames/s", f"at least {job.min_frames} frames"
        raise refused(MediaReason.TOO_SHORT, "clip", found, allowed)
    return first, [picture for picture in tail if picture is not None], count


def _survey(data: bytes, content_type: str, job: ClipJob) -> Fraction:
    """Reads packets only, so that a clip that is too long is refused before it costs anything.

    Returns the seconds from the first frame's begin to the last one's.
    """
    with open_clip(data, content_type, job) as container:
        stream = video_stream(container, content_type, job)
        time_base, first, last = Fraction(stream.time_base), None, None
        for number, packet in enumerate(container.demux(stream)):  # the last packet is empty
            check_frames(number, job)
            time = packet.dts if packet.pts is None else packet.pts
            if time is not None:
                first = time if first is None else min(first, time)
                last = time if last is None else max(last, time)
                check_duration((last - first) * time_base, job)
        return Fraction(0) if first is None or last is None else (last - first) * time_base


def _pass(
    data: bytes, content_type: str, job: ClipJob, *, wanted: int
) -> tuple[Pixels | None, list[Pixels | None], int]:
    """Decodes everything in order; of the frames at job.fps between the first and number `wanted`, only counts."""
    first: Pixels | None = None
    tail: deque[Pixels | None] = deque(maxlen=job.keep_last)
    count = 0
    for picture in _resampled(data, content_type, job):
        if first is None:
            first = picture.pixels()
        tail.append(picture.pixels() if count >= wanted else None)
        count += 1
    return first, list(tail), count


def _resampled(data: bytes, content_type: str, job: ClipJob) -> Iterator[Picture]:
    """The clip's frames at job.fps."""
    with open_clip(data, content_type, job) as container:
        stream = video_stream(container, content_type, job)
        time_base, aspect = Fraction(stream.time_base), pixel_aspect(stream)
        resampler = Resampler[Picture](fps=job.fps, slack_s=time_base)
        start = last = None
        duration = Fraction(0)
        for number, frame in enumerate(_frames(container, stream), 1):
            check_frames(number, job)
            if frame.width * frame.height > job.max_pixels:
                raise too_many_pixels(frame.width, frame.height, job)
            time = frame.dts if frame.pts is None else frame.pts  # AVI knows when to decode only
            if time is None or (last is not None and time <= last):
                continue  # never shown: players skip frames without a time, or with one that has passed
            start, last = time if start is None else start, time
            duration = max(frame.duration or 0, 0) * time_base
            check_duration((last - start) * time_base + duration, job)
            yield from resampler.push(last * time_base, Picture(frame, job, aspect))
        yield from resampler.finish(duration)


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise damaged()
        for frame in packet.decode():
            if frame.is_corrupt:
                raise damaged()
            yield frame
