"""Work done and replicas there, over the time that counts."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class Meter:
    """Counts from `start_s` to `end_s` only."""

    start_s: float
    end_s: float
    worked_s: float = 0.0
    _level: int = 0
    _since_s: float = 0.0
    _there_s: float = 0.0

    def worked(self, begin_s: float, end_s: float) -> None:
        """A replica works in this span."""
        self.worked_s += self._inside(begin_s, end_s)

    def level(self, now_s: float, replicas: int) -> None:
        """Notes that there are this many replicas from now on."""
        self._there_s += self._level * self._inside(self._since_s, now_s)
        self._level, self._since_s = replicas, now_s

    def replica_s(self) -> float:
        """Seconds of all replicas together. Call it at the end."""
        self.level(self.end_s, self._level)
        return self._there_s

    @property
    def utilisation(self) -> float:
        """Share of the replicas' time in which they worked."""
        there_s = self.replica_s()
        return self.worked_s / there_s if there_s else 0.0

    def _inside(self, begin_s: float, end_s: float) -> float:
        begin_s, end_s = max(begin_s, self.start_s), min(end_s, self.end_s)
        return end_s - begin_s if end_s > begin_s else 0.0
