"""The part of a file that a request wants (RFC 9110, section 14)."""

import re
from dataclasses import dataclass

RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `end`, without the last."""

    start: int
    end: int


def wanted(header: str, total: int) -> Span | None:
    """The span that is asked for; None for the whole file, also where the header is none that we know: several ranges,
    another unit. Raises ValueError for a span that the file has not."""
    found = RANGE.fullmatch(header.replace(" ", ""))
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if not first:
        start, end = max(0, total - int(last)), total
    else:
        start, end = int(first), min(int(last) + 1, total) if last else total
        if last and int(last) < start:
            return None
    if start >= end:
        raise ValueError(header)
    return Span(start, end)
