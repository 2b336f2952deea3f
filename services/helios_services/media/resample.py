"""Picks the frames of a clip at another frame rate."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Resampler(Generic[Item]):
    """Frame k of the result is the latest frame shown at k / fps seconds after the first one.

    Nothing is blended: frames are repeated or left out. `slack_s`: containers round timestamps to their clock, so a
    frame counts as shown up to one tick of it early.
    """

    def __init__(self, *, fps: int, slack_s: Fraction) -> None:
        self._period, self._slack = Fraction(1, fps), min(slack_s, Fraction(1, 2 * fps))
        self._next = Fraction(0)
        """Seconds from the start: the time of the next frame of the result."""
        self._shown: tuple[Fraction, Item] | None = None
        self._delta = Fraction(0)

    def push(self, time_s: Fraction, item: Item) -> Iterator[Item]:
        """Takes a frame shown from time_s on, later than those before; yields frames of the result."""
        if self._shown is None:
            self._start = time_s
        else:
            self._delta = time_s - self._shown[0]
            yield from self._until(time_s)
        self._shown = (time_s, item)

    def finish(self, duration_s: Fraction) -> Iterator[Item]:
        """Ends the clip duration_s after its last frame began (0 or less: unknown, as long as the one before)."""
        if self._shown is not None:
            yield from self._until(self._shown[0] + (duration_s if duration_s > 0 else self._delta or self._period))

    def _until(self, end_s: Fraction) -> Iterator[Item]:
        assert self._shown is not None
        while self._next + self._slack < end_s - self._start:
            yield self._shown[1]
            self._next += self._period
