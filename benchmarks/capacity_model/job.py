"""One job in the model: how far it is, and how its viewer is doing."""

from dataclasses import dataclass

from benchmarks.capacity_model.arrivals import Arrival
from benchmarks.capacity_model.inputs import Playback, Rank


@dataclass(kw_only=True, slots=True, eq=False)
class SimJob:
    """made: chunks denoised; delivered: chunks stored. playing_until_s: when the viewer has played all of them."""

    number: int
    arrival: Arrival
    claimed_s: float | None = None
    made: int = 0
    delivered: int = 0
    failed: bool = False
    playing_since_s: float = 0.0
    playing_until_s: float = 0.0

    @property
    def rank(self) -> Rank:
        """Queue order."""
        return self.arrival.kind.rank

    def complete(self, now_s: float) -> bool:
        """No chunk is wanted any more. A session has one chunk at least."""
        if self.arrival.session_s:
            assert self.claimed_s is not None
            return self.made > 0 and now_s >= self.claimed_s + self.arrival.session_s
        return self.made >= self.arrival.chunks

    def pause_s(self, now_s: float, playback: Playback) -> float:
        """How long a paced session waits before its next chunk."""
        ahead = self.arrival.kind.ahead_chunks
        if ahead is None or self.delivered < playback.buffer_chunks:
            return 0.0
        played = (now_s - self.playing_since_s) / playback.chunk_s
        # 1e-6: the pause must end it, whatever the rounding
        return (self.made - ahead - played) * playback.chunk_s + 1e-6 if self.made - ahead > played else 0.0

    def deliver(self, now_s: float, playback: Playback) -> float:
        """A chunk is there; how late it came for the viewer, as benchmarks.player has it. Seconds."""
        self.delivered += 1
        buffer = playback.buffer_chunks
        if not self.arrival.session_s:
            buffer = min(buffer, self.arrival.chunks)
        if self.delivered < buffer:
            return 0.0
        if self.delivered == buffer:
            self.playing_since_s = now_s
            self.playing_until_s = now_s + buffer * playback.chunk_s
            return 0.0
        late_s = max(now_s - self.playing_until_s, 0.0)
        self.playing_since_s += late_s  # what is played shifts with every stall
        self.playing_until_s += late_s + playback.chunk_s
        return late_s
