"""How many cases, and how they are drawn.

HELIOS_FUZZ_CASES is the number in all, 1,000 if unset; then they are the same in every run. `make fuzz` sets it, and
draws others each time; a failing case is printed in full.
"""

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

TOTAL = int(os.environ.get("HELIOS_FUZZ_CASES", "1000"))
LONG = "HELIOS_FUZZ_CASES" in os.environ


def cases(share: float) -> Callable[[Any], Any]:
    """Hypothesis settings of a test that takes this share of all cases."""
    return settings(
        max_examples=max(round(TOTAL * share), 1),
        derandomize=not LONG,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


Edit = tuple[int, float, bytes]


def edits() -> st.SearchStrategy[list[Edit]]:
    """What to do to a file: kind, place (a share of its length), bytes."""
    blob = st.one_of(
        st.binary(min_size=1, max_size=24),
        st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff" * 8]),
    )
    return st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1), blob), min_size=1, max_size=5)


def edited(data: bytes, changes: list[Edit], *, keep: int = 0) -> bytes:
    """The file after the changes; its first `keep` bytes stay."""
    changed = bytearray(data)
    for kind, place, blob in changes:
        at = min(keep + int(place * (len(changed) - keep)), len(changed))
        match kind:
            case 0:
                changed[at : at + len(blob)] = blob
            case 1:
                changed[at:at] = blob
            case 2:
                del changed[at : at + len(blob) * 4]
            case 3:
                changed[at : at + 1] = bytes([changed[at] ^ (1 << blob[0] % 8)]) if at < len(changed) else b""
            case _:
                changed[at:at] = changed[at : at + len(blob) * 8]
    return bytes(changed)
