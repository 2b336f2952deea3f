"""Seconds of each stage, as the pipeline's timing hook takes them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageWatch:
    """Called with a stage's name, it measures what is done within."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Adds the seconds that pass within to the stage's."""
        before = time.perf_counter()
        yield
        self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - before

    def taken(self) -> dict[str, float]:
        """Seconds by stage since the last call."""
        seconds, self._seconds = self._seconds, {}
        return seconds
