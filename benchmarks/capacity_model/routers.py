"""Who gets a free replica: the first that waits, or whoever looks at the right moment (Ray Serve's router)."""

from collections import deque
from functools import partial
from typing import Protocol

from simpy import Environment, Event

from benchmarks.capacity_model.pool import Call, Pool

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.025, 0.5
"""Ray Serve 2.60: RAY_SERVE_ROUTER_RETRY_INITIAL_BACKOFF_S, doubled up to RAY_SERVE_ROUTER_RETRY_MAX_BACKOFF_S."""
MAX_LOOKERS = 50
"""Ray Serve 2.60: routing tasks of one router; also at most two per replica."""


class Router(Protocol):
    """Calls replicas of one pool."""

    def call(self, hold_s: float) -> Call:
        """A call that occupies a replica for `hold_s`."""


class ImmediateRouter:
    """One queue for all callers; a replica that becomes free takes its head."""

    def __init__(self, env: Environment, pool: Pool) -> None:
        self._env, self._pool = env, pool
        self._waiting: deque[Call] = deque()
        pool.on_free = self._hand_out

    def call(self, hold_s: float) -> Call:
        """See Router."""
        call = Call(self._env, hold_s)
        self._waiting.append(call)
        self._hand_out()
        return call

    def _hand_out(self) -> None:
        while self._waiting and (replica := self._pool.any_idle()) is not None:
            self._pool.begin(replica, self._waiting.popleft())


class ServeRouter:
    """Ray Serve's power-of-two router: a free replica is found by looking, not told.

    A looker that finds an idle replica gives it to the call that has waited longest in this router. When two random
    replicas are busy it looks again at once, then after 25 ms, 50 ms, … 0.5 s.
    """

    def __init__(self, env: Environment, pool: Pool) -> None:
        self._env, self._pool = env, pool
        self._waiting: deque[Call] = deque()
        self._lookers = 0

    def call(self, hold_s: float) -> Call:
        """See Router."""
        call = Call(self._env, hold_s)
        self._waiting.append(call)
        while self._lookers < self._wanted():
            self._lookers += 1
            self._look(0)
        return call

    def _wanted(self) -> int:
        return min(len(self._waiting), MAX_LOOKERS, 2 * max(len(self._pool), 1))

    def _look(self, pauses: int, _: Event | None = None) -> None:
        while self._waiting:
            replica = self._pool.idle_of_two()
            if replica is None and pauses == 0:
                replica = self._pool.idle_of_two()  # the first repetition comes without a pause
            if replica is None:
                timeout = self._env.timeout(min(FIRST_PAUSE_S * 2.0 ** min(pauses, 10), LONGEST_PAUSE_S))
                assert timeout.callbacks is not None
                timeout.callbacks.append(partial(self._look, pauses + 1))
                return
            self._pool.begin(replica, self._waiting.popleft())
            pauses = 0
            if self._lookers > self._wanted():
                break
        self._lookers -= 1
