"""Replicas of one stage: one call at a time each; they die, are replaced, and become more or fewer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from random import Random

from simpy import Environment, Event

from benchmarks.capacity_model.inputs import ReplicaLoss
from benchmarks.capacity_model.meter import Meter


class Call(Event):
    """A call of a stage, waiting or in progress. Its value says whether it was completed; False: the replica died."""

    def __init__(self, env: Environment, hold_s: float) -> None:
        super().__init__(env)
        self.hold_s = hold_s

    def end_after(self, delay_s: float, value: bool = True) -> None:
        """Happens after a delay. One scheduled event; a timeout that then triggers this one would be two."""
        self._ok, self._value = True, value
        self.env.schedule(self, delay=delay_s)


@dataclass(kw_only=True, slots=True, eq=False)
class Replica:
    """place: in the list of live replicas. listed: it is on the stack of idle ones."""

    place: int
    dies_s: float
    busy: bool = False
    alive: bool = True
    listed: bool = False


class Pool:
    """The replicas. Which call goes to which is the router's business."""

    def __init__(self, env: Environment, size: int, *, loss: ReplicaLoss, start_s: float, seed: str, meter: Meter):
        self._env, self._loss, self._start_s, self.meter = env, loss, start_s, meter
        self._random = Random(seed)
        self._live: list[Replica] = []
        self._idle: list[Replica] = []
        self._target, self._starting = size, 0
        self.lost_calls = self.losses = 0
        self.on_free: Callable[[], None] = lambda: None
        for _ in range(size):
            self._add()

    def __len__(self) -> int:
        return len(self._live)

    @property
    def target(self) -> int:
        """Replicas wanted."""
        return self._target

    def any_idle(self) -> Replica | None:
        """The replica that became idle last, or None."""
        while self._idle:
            replica = self._idle.pop()
            replica.listed = False
            if replica.alive and not replica.busy:
                return replica
        return None

    def idle_of_two(self) -> Replica | None:
        """An idle one of two random replicas, or None if both are busy."""
        live = self._live
        if not live:
            return None
        replica = live[int(self._random.random() * len(live))]
        if replica.busy and len(live) > 1:
            other = int(self._random.random() * (len(live) - 1))
            replica = live[other if other < replica.place else other + 1]
        return None if replica.busy else replica

    def begin(self, replica: Replica, call: Call) -> None:
        """Occupies an idle replica with a call."""
        now, held = self._env.now, call.hold_s
        completed = now + held < replica.dies_s
        if not completed:
            held = replica.dies_s - now
            self.lost_calls += 1
        replica.busy = True
        self.meter.worked(now, now + held)
        assert call.callbacks is not None
        call.callbacks.insert(0, partial(self._ended, replica))  # before the caller goes on and wants a replica again
        call.end_after(held, completed)

    def resize(self, target: int) -> None:
        """Orders replicas, or retires them: idle ones now, busy ones after their call."""
        self._target = target
        while len(self._live) > target and (replica := self.any_idle()) is not None:
            self._remove(replica)
        self._order()

    def _ended(self, replica: Replica, call: Event) -> None:
        replica.busy = False
        if not replica.alive or not call.value:  # it dies in this instant
            return
        if len(self._live) > self._target:
            self._remove(replica)
            return
        self._offer(replica)

    def _offer(self, replica: Replica) -> None:
        if not replica.listed:
            replica.listed = True
            self._idle.append(replica)
        self.on_free()

    def _order(self) -> None:
        while len(self._live) + self._starting < self._target:
            self._starting += 1
            self._later(self._start_s, self._started)

    def _started(self, _: Event) -> None:
        self._starting -= 1
        if len(self._live) < self._target:
            self._add()

    def _add(self) -> None:
        life_s = inf if self._loss.mtbf_s == inf else self._random.expovariate(1 / self._loss.mtbf_s)
        replica = Replica(place=len(self._live), dies_s=self._env.now + life_s)
        self._live.append(replica)
        self.meter.level(self._env.now, len(self._live))
        if life_s < inf:
            self._later(life_s, partial(self._die, replica))
        self._offer(replica)

    def _die(self, replica: Replica, _: Event) -> None:
        if replica.alive:
            self.losses += 1
            self._remove(replica)
            self._order()

    def _remove(self, replica: Replica) -> None:
        replica.alive = False
        last = self._live.pop()
        if last is not replica:
            self._live[replica.place], last.place = last, replica.place
        self.meter.level(self._env.now, len(self._live))

    def _later(self, delay_s: float, then: Callable[[Event], None]) -> None:
        timeout = self._env.timeout(delay_s)
        assert timeout.callbacks is not None
        timeout.callbacks.append(then)
