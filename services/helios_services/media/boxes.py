"""Splits ISO base media files (MP4) into their top-level boxes."""

from collections.abc import Iterator


def boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields (type, whole box) in order. Raises ValueError for data that does not end with a box."""
    offset = 0
    while offset < len(data):
        size = int.from_bytes(data[offset : offset + 4], "big")
        if size < 8 or offset + size > len(data):
            raise ValueError(f"MP4: no whole box at byte {offset} of {len(data)}")
        yield data[offset + 4 : offset + 8].decode("latin-1"), data[offset : offset + size]
        offset += size
