"""Whether a clip is whole: demuxers take the end of the data for the end of the clip, or for a missing codec."""

_SEGMENT, _SEARCHED_BYTES = b"\x18\x53\x80\x67", 256
_BOXES = (b"moov", b"mdat", b"moof")


def is_cut_off(data: bytes, content_type: str) -> bool:
    """Whether the file says that it is longer than the data."""
    if content_type in ("video/webm", "video/x-matroska"):
        return _matroska(data)
    return _avi(data) if content_type == "video/x-msvideo" else _mp4(data)


def _avi(data: bytes) -> bool:
    """Compares with the size of the first list; a recording that was not ended gives none."""
    size = int.from_bytes(data[4:8], "little")
    return 8 + size > len(data)


def _matroska(data: bytes) -> bool:
    """Compares with the size of the segment, which recordings that were streamed do not give."""
    at = data.find(_SEGMENT, 0, _SEARCHED_BYTES) + len(_SEGMENT)
    if at < len(_SEGMENT) or at >= len(data) or data[at] == 0:
        return False  # no size to go by; the demuxer decides
    # a number of 1 to 8 bytes: as many as there are zero bits before the first one, and one more
    count = 9 - data[at].bit_length()
    bits = 7 * count
    size = int.from_bytes(data[at : at + count], "big") & ((1 << bits) - 1)
    unknown = size == (1 << bits) - 1
    return not unknown and at + count + size > len(data)


def _mp4(data: bytes) -> bool:
    """Compares with the sizes of the boxes that matter; what else lies at the end may be anything."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if size == 0:  # up to the end
            return False
        if size == 1:  # 64 bits of size follow
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8 or at + size > len(data):
            return kind in _BOXES
        at += size
    return False
