"""A simulated video player: what a viewer sees of a stream of chunks."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Playback:
    """How playback went. start_s: when it began; underruns: times it stopped; stall_s: seconds stopped in all."""

    start_s: float
    underruns: int
    stall_s: float


def play(arrival_s: Sequence[float], chunk_s: float, buffer_chunks: int) -> Playback:
    """Plays chunks of `chunk_s` seconds that arrive at `arrival_s` (seconds since the request, ascending).

    Playback begins when `buffer_chunks` chunks are there, and after an underrun goes on with the next chunk.
    """
    start = clock = arrival_s[min(buffer_chunks, len(arrival_s)) - 1]
    underruns, stall = 0, 0.0
    for arrival in arrival_s:
        if arrival > clock:
            underruns += 1
            stall += arrival - clock
            clock = arrival
        clock += chunk_s
    return Playback(start_s=start, underruns=underruns, stall_s=stall)
