"""The service as a discrete-event model: queue, dispatchers' slots, stages, and the pipeline of each job.

A chunk is three or four scheduled events and no process of its own: jobs are SimPy processes, calls of stages are
bare events with callbacks. That is what lets 10,000 GPUs run chunk by chunk, without a fluid approximation.
"""

import gc
import heapq
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from simpy import Environment, Event

from benchmarks.capacity_model.arrivals import Arrival
from benchmarks.capacity_model.autoscaler import Autoscaler
from benchmarks.capacity_model.inputs import Fleet, Rank, Run, Samples, StageTimes
from benchmarks.capacity_model.job import SimJob
from benchmarks.capacity_model.meter import Meter
from benchmarks.capacity_model.outcome import Outcome, Service, job_counts, tallies
from benchmarks.capacity_model.pool import Call, Pool
from benchmarks.capacity_model.routers import ImmediateRouter, Router, ServeRouter


def simulate(times: StageTimes, fleet: Fleet, arrivals: Iterator[Arrival], run: Run) -> Outcome:
    """Runs the model. The same arguments give the same outcome."""
    collecting = gc.isenabled()
    gc.disable()  # events have no cycles worth looking for, and there are millions
    try:
        return Simulation(times, fleet, run).run(arrivals)
    finally:
        if collecting:
            gc.enable()


@dataclass(frozen=True, kw_only=True)
class Dispatcher:
    """The routers of one dispatcher replica."""

    denoise: Router
    decode: Router


class Simulation:
    """One run."""

    def __init__(self, times: StageTimes, fleet: Fleet, run: Run) -> None:
        self._env, self._times, self._fleet, self._run = Environment(), times, fleet, run
        self._random = Random(f"stages {run.seed}")
        meters = [Meter(start_s=run.warmup_s, end_s=run.horizon_s) for _ in range(3)]
        self._denoisers = self._pool("denoisers", fleet.denoisers, meters[0])
        self._decoders = self._pool("decoders", fleet.decoders, meters[1])
        self._text = ImmediateRouter(self._env, self._pool("text", fleet.text_encoders, meters[2]))
        self._immediate = Dispatcher(
            denoise=ImmediateRouter(self._env, self._denoisers), decode=ImmediateRouter(self._env, self._decoders)
        ) if fleet.router == "immediate" else None  # fmt: skip
        self._free: list[Dispatcher] = []
        self._slots = self._surplus = 0
        self._queue: list[tuple[Rank, int, SimJob]] = []
        self._waiting, self._yielding = Counter[Rank](), 0
        self._tallies, self._ends = tallies(), Counter[str]()
        self._arrived = self._preemptions = 0
        self._wait_sum_s, self._chunks, self._arrivals_over = 0.0, 0, False
        self._scaler = None if fleet.scaling is None else Autoscaler(fleet.scaling, fleet, times)
        self._all_ended = self._env.event()
        self._denoise_s, self._text_s = self._draw(times.denoise_s), self._draw(times.text_s)
        self._decode_s, self._encode_s = self._draw(times.decode_s), self._draw(times.encode_s)
        self._set_slots(fleet.slots or fleet.denoisers)

    def run(self, arrivals: Iterator[Arrival]) -> Outcome:
        """Simulates up to the horizon, or until all jobs have ended."""
        self._env.process(self._arrive(arrivals))
        if self._scaler is not None:
            self._env.process(self._scale(self._scaler))
        if not self._run.drain:
            self._env.run(until=self._run.horizon_s)
            return self._outcome(self._run.horizon_s)
        self._env.run(until=self._all_ended)
        return self._outcome(min(self._run.horizon_s, self._env.now))

    def _pool(self, name: str, size: int, meter: Meter) -> Pool:
        loss = self._fleet.decoder_loss if name == "decoders" else self._fleet.denoiser_loss
        if name == "text":
            loss = type(loss)()
        seed = f"{name} {self._run.seed}"
        return Pool(self._env, size, loss=loss, start_s=self._fleet.start_s, seed=seed, meter=meter)

    def _draw(self, samples: Samples) -> Callable[[], float]:
        if len(samples) == 1:
            value = samples[0]
            return lambda: value
        return partial(self._random.choice, samples)

    # queue and slots

    def _arrive(self, arrivals: Iterator[Arrival]) -> Generator[Event, Any, None]:
        env = self._env
        for number, arrival in enumerate(arrivals):
            if arrival.at_s > env.now:
                yield env.timeout(arrival.at_s - env.now)
            self._arrived += 1
            if self._scaler is not None:
                self._scaler.came(env.now, arrival)
            if len(self._queue) >= self._fleet.max_queued:
                self._ends["refused"] += 1
                continue
            self._enqueue(SimJob(number=number, arrival=arrival))
            self._start_jobs()
        self._arrivals_over = True
        self._check_all_ended()

    def _check_all_ended(self) -> None:
        over = self._arrivals_over and sum(self._ends.values()) == self._arrived
        if over and not self._all_ended.triggered:
            self._all_ended.succeed()

    def _set_slots(self, slots: int) -> None:
        while self._slots < slots:
            if self._surplus:
                self._surplus -= 1
            else:
                self._free.append(self._dispatcher(len(self._free)))
            self._slots += 1
        self._surplus += max(self._slots - slots, 0)
        self._slots = slots
        while self._surplus and self._free:
            self._free.pop()
            self._surplus -= 1

    def _dispatcher(self, slot: int) -> Dispatcher:
        if self._immediate is not None:
            return self._immediate
        if slot % self._fleet.slots_per_dispatcher and self._free:
            return self._free[-1]
        return Dispatcher(
            denoise=ServeRouter(self._env, self._denoisers), decode=ServeRouter(self._env, self._decoders)
        )

    def _enqueue(self, job: SimJob) -> None:
        heapq.heappush(self._queue, (job.rank, job.number, job))  # its old place, if it had one
        self._waiting[job.rank] += 1

    def _start_jobs(self) -> None:
        while self._queue and self._free:
            _, _, job = heapq.heappop(self._queue)
            self._waiting[job.rank] -= 1
            self._env.process(self._drive(job, self._free.pop()))

    def _give_slot_back(self, dispatcher: Dispatcher) -> None:
        if self._surplus:
            self._surplus -= 1
        else:
            self._free.append(dispatcher)
        self._start_jobs()

    def _outranked(self, job: SimJob) -> bool:
        if not self._fleet.preemption or not self._queue or self._queue[0][0] >= job.rank:
            return False
        above = sum(count for rank, count in self._waiting.items() if rank < job.rank)
        return above > self._yielding  # one job makes room for one

    # one job in one slot

    def _drive(self, job: SimJob, dispatcher: Dispatcher) -> Generator[Event, Any, None]:
        env, times = self._env, self._times
        if times.claim_s:
            yield env.timeout(times.claim_s)
        if job.claimed_s is None:
            job.claimed_s = env.now
            self._waited(job, env.now)
            yield self._text.call(self._text_s())
        delivery: Event | None = None
        alive = preempted = False
        while not (done := job.complete(env.now)):
            if preempted := self._outranked(job):
                self._yielding += 1
                break
            if (pause_s := job.pause_s(env.now, self._run.playback)) > 0:
                yield env.timeout(pause_s)
                continue  # the session may have ended meanwhile
            if times.begin_s:
                yield env.timeout(times.begin_s)
            for losses in range(self._fleet.denoiser_loss.max_losses):
                if losses:
                    yield env.timeout(self._fleet.denoiser_loss.notice_s)
                own_s = job.arrival.own_s
                denoise_s = own_s[job.made][0] if own_s else self._denoise_s() * job.arrival.kind.denoise_factor
                alive = yield dispatcher.denoise.call(denoise_s + times.call_s)
                if alive:
                    break
            if delivery is not None and not delivery.processed:
                yield delivery  # chunk k is delivered before k + 1 is decoded: no further ahead
            if not alive or job.failed:
                break
            delivery = self._env.event()
            self._decode(dispatcher, delivery, job, 0)
            job.made += 1
        if delivery is not None and not delivery.processed:
            yield delivery
        if preempted:
            self._yielding -= 1
        if preempted and not job.failed:
            self._preemptions += 1
            self._enqueue(job)
            self._give_slot_back(dispatcher)
            return
        if done and times.publish_s:
            yield env.timeout(times.publish_s)
        self._ends["succeeded" if done and not job.failed else "failed"] += 1
        self._check_all_ended()
        self._give_slot_back(dispatcher)

    def _decode(
        self, dispatcher: Dispatcher, delivery: Event, job: SimJob, losses: int, _: Event | None = None
    ) -> None:
        own_s = job.arrival.own_s
        decode_s = own_s[job.delivered][1] if own_s else self._decode_s() + self._encode_s()
        call = dispatcher.decode.call(decode_s + self._times.call_s)
        assert call.callbacks is not None
        call.callbacks.append(partial(self._decoded, dispatcher, delivery, job, losses))

    def _decoded(self, dispatcher: Dispatcher, delivery: Event, job: SimJob, losses: int, call: Event) -> None:
        loss = self._fleet.decoder_loss
        if call.value:
            self._after(self._times.append_s, partial(self._deliver, delivery, job))
        elif losses + 1 < loss.max_losses:
            self._after(loss.notice_s, partial(self._decode, dispatcher, delivery, job, losses + 1))
        else:
            job.failed = True
            delivery.succeed()

    def _deliver(self, delivery: Event, job: SimJob, _: Event) -> None:
        run, now = self._run, self._env.now
        first = job.delivered == 0
        late_s = job.deliver(now, run.playback)
        if run.warmup_s <= now < run.horizon_s:
            self._chunks += 1
            if job.arrival.at_s >= run.warmup_s:
                tally = self._tallies[job.rank]
                tally.chunks += 1
                tally.late_chunks += late_s > 0
                tally.stall_s += late_s
                if first:
                    tally.first_chunks_s.append(now - job.arrival.at_s)
        delivery.succeed()

    def _after(self, delay_s: float, then: Callable[[Event], None]) -> None:
        later = Call(self._env, delay_s)
        assert later.callbacks is not None
        later.callbacks.append(then)
        later.end_after(delay_s)

    # figures

    def _waited(self, job: SimJob, now: float) -> None:
        if self._run.warmup_s <= job.arrival.at_s < self._run.horizon_s:
            self._tallies[job.rank].waits_s.append(now - job.arrival.at_s)

    def _scale(self, scaler: Autoscaler) -> Generator[Event, Any, None]:
        while True:
            yield self._env.timeout(scaler.rule.interval_s)
            queued_s = sum(scaler.denoiser_s(job.arrival) for _, _, job in self._queue)
            target = scaler.target(self._env.now, self._denoisers.target, queued_s)
            if target != self._denoisers.target:
                self._denoisers.resize(target)
                self._decoders.resize(scaler.decoders(target))
            self._set_slots(scaler.slots(len(self._denoisers)))
            self._start_jobs()

    def _outcome(self, end_s: float) -> Outcome:
        for _, _, job in self._queue:
            if job.claimed_s is None:
                self._waited(job, self._env.now)
        window_s = end_s - self._run.warmup_s
        waits = [wait for tally in self._tallies.values() for wait in tally.waits_s]
        denoisers, decoders = self._denoisers.meter, self._decoders.meter
        denoisers.end_s = decoders.end_s = end_s
        return Outcome(
            every=Service.of(list(self._tallies.values())),
            ranks={rank.name.lower(): Service.of([tally]) for rank, tally in self._tallies.items()},
            chunks_per_s=self._chunks / window_s,
            denoiser_utilisation=denoisers.utilisation,
            decoder_utilisation=decoders.utilisation,
            denoisers_mean=denoisers.replica_s() / window_s,
            decoders_mean=decoders.replica_s() / window_s,
            jobs=job_counts(self._ends, self._arrived),
            mean_wait_s=sum(waits) / len(waits) if waits else 0.0,
            preemptions=self._preemptions,
            lost_calls=self._denoisers.lost_calls + self._decoders.lost_calls,
            end_s=self._env.now,
        )
