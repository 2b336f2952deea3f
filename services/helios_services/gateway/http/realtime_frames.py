"""Binary messages: a header of 8 bytes, then bytes of the video.

| bytes | |
|---|---|
| 0 | 1: the init segment, 2: a chunk's fragment |
| 1 | 1 on the last message of a segment, else 0 |
| 2, 3 | number of the message in its segment, from 0 (big-endian) |
| 4 to 7 | index of the chunk, from 0 (big-endian); 0 with the init segment |
"""

import struct

from helios_services.gateway.calls.video_stream import Segment

HEADER = struct.Struct("!BBHI")
INIT, CHUNK = 1, 2


def frame(segment: Segment) -> bytes:
    """A segment as it is now: all of it in one message."""
    record = segment.record
    kind, index = (INIT, 0) if record is None else (CHUNK, record.index)
    return HEADER.pack(kind, 1, 0, index) + segment.data
