"""The decoding process: `python -m helios_services.media.decode_child`, started by the sandbox.

One request on standard input, one answer on standard output; see wire.py. Keep the imports few: it starts for every
file.
"""

import sys
import traceback
from collections.abc import Iterable

import numpy as np

from helios_services.media.clip import decode_clip_frames
from helios_services.media.confine import confine
from helios_services.media.errors import MediaError, MediaReason
from helios_services.media.still import decode_still
from helios_services.media.wire import GREETING, HEADER, LENGTH, Request, refusal_bytes


def main() -> None:
    """Decodes one file."""
    source = sys.stdin.buffer
    (length,) = LENGTH.unpack(source.read(LENGTH.size))
    request = Request.from_json(source.read(length))
    confine(memory_bytes=request.memory_bytes, cpu_s=request.cpu_s)
    _write([GREETING])
    field = "clip" if request.clip else "image"
    try:
        answer = _decode(source.read(request.size_bytes), request)
    except MediaError as error:
        answer = [refusal_bytes(error)]
    except MemoryError:
        text = f"{field}: decoding needs more memory than the {request.memory_bytes} bytes it may use"
        answer = [refusal_bytes(MediaError(MediaReason.TOO_COMPLEX, text))]
    except Exception:  # a decoder may raise anything for data that was made to break it
        traceback.print_exc(limit=-4)
        kind = request.content_type.partition("/")[2]
        text = f"{field}: the data cannot be decoded as {kind}; it is damaged, cut off or empty"
        answer = [refusal_bytes(MediaError(MediaReason.UNREADABLE, text))]
    _write(answer)


def _decode(data: bytes, request: Request) -> Iterable[bytes | memoryview]:
    if len(data) != request.size_bytes:
        raise EOFError(f"{len(data)} of {request.size_bytes} bytes arrived")
    if request.clip is not None:
        first, tail, count = decode_clip_frames(data, request.content_type, request.clip)
    else:
        kind, pixels = request.content_type, request.max_pixels
        first = decode_still(data, kind, height=request.height, width=request.width, max_pixels=pixels)
        tail, count = [], 1
    return [HEADER.pack(0, count, len(tail), 0), *(np.ascontiguousarray(frame).data for frame in (first, *tail))]


def _write(parts: Iterable[bytes | memoryview]) -> None:
    for part in parts:
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
