"""The simulated player."""

import pytest

from benchmarks.player import Playback, play

CASES = [
    ([1.0, 2.0, 3.0], 1.0, 1, Playback(start_s=1.0, underruns=0, stall_s=0.0)),
    ([1.0, 3.0, 4.0], 1.0, 1, Playback(start_s=1.0, underruns=1, stall_s=1.0)),
    ([1.0, 3.0, 4.0], 1.0, 2, Playback(start_s=3.0, underruns=0, stall_s=0.0)),
    ([1.0, 2.0, 6.0, 6.5], 1.0, 2, Playback(start_s=2.0, underruns=1, stall_s=2.0)),
    ([1.0], 1.0, 5, Playback(start_s=1.0, underruns=0, stall_s=0.0)),
]


@pytest.mark.parametrize(("arrivals", "chunk_s", "buffer", "expected"), CASES)
def test_playback(arrivals: list[float], chunk_s: float, buffer: int, expected: Playback) -> None:
    assert play(arrivals, chunk_s, buffer) == expected
