"""The decoding process: `python -m helios_services.media.decode_child`, started by the sandbox.

One request on standard input, one answer on standard output; see wire.py. Keep the imports few: it starts for every
file.
"""

import sys
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from helios_services.media.confine import confine
from helios_services.media.errors import MediaError, MediaReason
from helios_services.media.wire import GREETING, HEADER, LENGTH, Request, refusal_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Decoded = tuple[NDArray[np.uint8], list[NDArray[np.uint8]], int]


def main() -> None:
    """Decodes one file."""
    source = sys.stdin.buffer
    (length,) = LENGTH.unpack(source.read(LENGTH.size))
    request = Request.from_json(source.read(length))
    decode = decoder(request)  # imports; later no file can be opened
    try:
        confine(memory_bytes=request.memory_bytes, cpu_s=request.cpu_s, require_filter=request.require_filter)
    except (OSError, ValueError) as error:
        sys.exit(f"cannot be confined: {error}")
    _write([GREETING])
    field = "clip" if request.clip else "image"
    try:
        first, tail, count = decode(source.read(request.size_bytes))
        answer: list[bytes | memoryview] = [HEADER.pack(0, count, len(tail), 0)]
        answer += [frame.data for frame in (first, *tail)]
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


def decoder(request: Request) -> "Callable[[bytes], Decoded]":
    """What decodes the file to its first frame, its tail and its number of frames. Imports one library, not both."""
    kind, clip = request.content_type, request.clip
    if clip is not None:
        from helios_services.media.clip import decode_clip_frames

        return lambda data: decode_clip_frames(data, kind, clip)
    from helios_services.media.still import decode_still

    size, max_pixels = {"height": request.height, "width": request.width}, request.max_pixels
    return lambda data: (decode_still(data, kind, **size, max_pixels=max_pixels), [], 1)


def _write(parts: Iterable[bytes | memoryview]) -> None:
    for part in parts:
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
