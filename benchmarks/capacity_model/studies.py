"""The questions that the tables of docs/capacity.md answer."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from benchmarks.capacity_model.arrivals import chunks_per_job, denoiser_s_per_job, mean, poisson
from benchmarks.capacity_model.inputs import Fleet, JobClass, Playback, Rank, ReplicaLoss, Run, Scaling, StageTimes
from benchmarks.capacity_model.outcome import Outcome
from benchmarks.capacity_model.search import smallest
from benchmarks.capacity_model.simulation import simulate

MIX = (
    JobClass(name="interactive, 4 to 8 chunks", rank=Rank.INTERACTIVE, share=0.4, chunks=(4, 8)),
    JobClass(name="normal, 8 to 22 chunks", rank=Rank.NORMAL, share=0.4, chunks=(8, 15, 22)),
    JobClass(name="batch, 44 chunks (a minute)", rank=Rank.BATCH, share=0.2, chunks=(44,)),
)
"""Assumed: nobody has asked for anything yet."""
TWICE_THE_STEPS = tuple(replace(kind, denoise_factor=2.0) for kind in MIX)
"""As many jobs at pyramid steps 2+2+2, the default of the distilled model."""
SESSION = JobClass(name="live session, 2 minutes", rank=Rank.INTERACTIVE, share=1.0, session_s=120.0)
DECODER_LOAD = 0.75
"""Share of the time that decoders work when all denoisers do; the rest keeps the queue before them short."""
GPUS_PER_DENOISER, GPUS_PER_DECODER = 1.0, 0.5
"""As in the configuration of docs/operations.md."""
UNBOUNDED = 10**9


@dataclass(frozen=True, kw_only=True)
class Slo:
    """What must hold: for interactive jobs 99th percentiles, few late chunks; and batch jobs do not starve."""

    queue_wait_p99_s: float = 5.0
    first_chunk_p99_s: float = 8.0
    missed_share: float = 0.01
    batch_wait_p99_s: float = 30.0

    def met(self, outcome: Outcome) -> bool:
        """Whether it does."""
        seen = outcome.ranks["interactive"]
        return (
            seen.queue_wait_p99_s <= self.queue_wait_p99_s
            and seen.first_chunk_p99_s <= self.first_chunk_p99_s
            and seen.missed_share <= self.missed_share
            and outcome.ranks["batch"].queue_wait_p99_s <= self.batch_wait_p99_s
            and outcome.jobs["refused"] == 0
        )


@dataclass(frozen=True, kw_only=True)
class Study:
    """Runs the model; one seed for all, so that rows differ by what they vary."""

    times: StageTimes
    mix: Sequence[JobClass] = MIX
    seed: int = 0

    @property
    def denoise_s(self) -> float:
        """Mean seconds that a denoiser needs from one chunk of a job to the next."""
        playback = Playback()
        chunks = chunks_per_job(self.mix, self.times, playback)
        return denoiser_s_per_job(self.mix, self.times, playback) / chunks + self.times.begin_s

    @property
    def decode_s(self) -> float:
        """Mean seconds that a decoder is occupied by one chunk."""
        return mean(self.times.decode_s) + mean(self.times.encode_s) + self.times.call_s

    @property
    def warmup_s(self) -> float:
        """Twice the longest job. No queue is long at the loads that it is used for."""
        return 2 * max(max(kind.chunks) for kind in self.mix) * self.denoise_s

    def fleet(self, denoisers: int, **options: Any) -> Fleet:
        """A fleet whose decoders keep up."""
        decoders = max(ceil(denoisers * self.decode_s / self.denoise_s / DECODER_LOAD), 1)
        options.setdefault("max_queued", UNBOUNDED)
        options.setdefault("text_encoders", max(ceil(denoisers / 100), 1))
        return Fleet(**{"denoisers": denoisers, "decoders": decoders} | options)

    def rate(self, denoisers: float, load: float, run: Run) -> float:
        """Jobs per second that need this share of the denoisers' time."""
        return load * denoisers / denoiser_s_per_job(self.mix, self.times, run.playback)

    def outcome(self, fleet: Fleet, rates: Sequence[tuple[float, float]], run: Run) -> Outcome:
        """One simulation."""
        arrivals = poisson(rates, self.mix, until_s=run.horizon_s, seed=self.seed)
        return simulate(self.times, fleet, arrivals, replace(run, seed=self.seed))

    def at_load(self, fleet: Fleet, load: float, run: Run) -> Outcome:
        """One simulation with constant load."""
        return self.outcome(fleet, [(0.0, self.rate(fleet.denoisers, load, run))], run)

    def scale(self, sizes: Sequence[int], load: float) -> list[dict[str, Any]]:
        """From one GPU to many, at the same load."""
        rows = []
        for size in sizes:
            long_s = min(max(10_000.0 / size, 60.0), 10_000.0)  # small fleets need longer for as many jobs
            fleet, run = self.fleet(size), Run(horizon_s=long_s + self.warmup_s, warmup_s=self.warmup_s)
            start = time.process_time()
            outcome = self.at_load(fleet, load, run)
            rows.append(row(fleet, outcome) | {"load": load, "simulated_in_cpu_s": time.process_time() - start})
        return rows

    def needed(self, jobs_per_s: Sequence[float], slo: Slo) -> list[dict[str, Any]]:
        """The fewest denoisers, then the fewest decoders, that meet the objective at these rates.

        Raises ValueError if ten times the denoisers that the work needs do not: late chunks, for one, stay late in any
        fleet if a chunk takes much longer than it plays.
        """
        rows = []
        for rate in jobs_per_s:
            busy = rate * denoiser_s_per_job(self.mix, self.times, Run().playback)
            run = Run(horizon_s=self.warmup_s + max(min(20_000.0 / busy, 5000.0), 120.0), warmup_s=self.warmup_s)

            def met(fleet: Fleet, rate: float = rate, run: Run = run) -> bool:
                return slo.met(self.outcome(fleet, [(0.0, rate)], run))

            denoisers = smallest(
                lambda size, met=met: met(self.fleet(size)),  # type: ignore[misc]
                at_least=ceil(busy),
                at_most=(at_most := 10 * ceil(busy) + 10),
                resolution=0.02,
            )
            if denoisers is None:
                raise ValueError(
                    f"needed: at {rate:g} jobs/s no fleet of up to {at_most} denoisers meets the objective; "
                    f"a chunk takes a denoiser {self.denoise_s:.3f} s, a decoder {self.decode_s:.3f} s, and plays "
                    f"{run.playback.chunk_s:.3f} s"
                )
            generous = self.fleet(denoisers)
            decoders = smallest(
                lambda size, met=met, fleet=generous: met(replace(fleet, decoders=size)),  # type: ignore[misc]
                at_least=max(ceil(generous.decoders * DECODER_LOAD * busy / denoisers), 1),
                at_most=generous.decoders,
                resolution=0.02,
            )
            fleet = replace(generous, decoders=decoders or generous.decoders)
            outcome = self.outcome(fleet, [(0.0, rate)], run)
            chunks_per_s = rate * chunks_per_job(self.mix, self.times, run.playback)
            rows.append({"jobs_per_s": rate, "chunks_per_s_needed": chunks_per_s} | row(fleet, outcome))
        return rows

    def overload(self, denoisers: int, loads: Sequence[float]) -> list[dict[str, Any]]:
        """Up to and over what the fleet can do, with the service's bounded queue."""
        run = Run(horizon_s=1200.0, warmup_s=300.0)
        fleet = self.fleet(denoisers, max_queued=Fleet(denoisers=1, decoders=1).max_queued)
        return [{"load": load} | row(fleet, self.at_load(fleet, load, run)) for load in loads]

    def preemption(self, denoisers: int, load: float) -> list[dict[str, Any]]:
        """Without preemption, and with it at chunk boundaries."""
        run = Run(horizon_s=3300.0, warmup_s=300.0)
        fleets = {preempt: self.fleet(denoisers, preemption=preempt) for preempt in (False, True)}
        return [{"preemption": on} | row(fleet, self.at_load(fleet, load, run)) for on, fleet in fleets.items()]

    def spot(self, denoisers: int, load: float, mtbf_h: Sequence[float]) -> list[dict[str, Any]]:
        """Denoisers that die after a mean time, and take `start_s` to come back."""
        run, rows = Run(horizon_s=2400.0, warmup_s=600.0), []
        for hours in mtbf_h:
            fleet = self.fleet(denoisers, denoiser_loss=ReplicaLoss(mtbf_s=hours * 3600.0), start_s=300.0)
            rows.append({"mtbf_h": hours} | row(fleet, self.at_load(fleet, load, run)))
        return rows

    def autoscaling(self, denoisers: int, start_s: Sequence[float]) -> list[dict[str, Any]]:
        """Traffic that trebles for twenty minutes, and replicas that take this long to start."""
        run, rows = Run(horizon_s=2700.0, warmup_s=300.0), []
        quiet = self.rate(denoisers, 0.7, run)
        rates = [(0.0, quiet), (600.0, 3 * quiet), (1800.0, quiet)]
        rule = Scaling(min_denoisers=denoisers, max_denoisers=6 * denoisers)
        for delay_s in start_s:
            fleet = self.fleet(denoisers, start_s=delay_s, scaling=rule)
            rows.append({"start_s": delay_s} | row(fleet, self.outcome(fleet, rates, run)))
        peak = self.fleet(ceil(3 * 0.7 * denoisers / rule.target_utilisation))
        return [*rows, {"start_s": "fixed at the peak's size"} | row(peak, self.outcome(peak, rates, run))]

    def routers(self, denoisers: int, load: float, slots_per_denoiser: Sequence[float]) -> list[dict[str, Any]]:
        """Ray Serve's router against an ideal one, by the number of jobs that share a denoiser."""
        run, rows = Run(horizon_s=600.0, warmup_s=200.0), []
        for router in ("immediate", "serve"):
            for ratio in slots_per_denoiser:
                fleet = self.fleet(denoisers, router=router, slots=round(ratio * denoisers))
                rows.append(
                    {"router": router, "slots_per_denoiser": ratio} | row(fleet, self.at_load(fleet, load, run))
                )
        return rows

    def sessions(self, denoisers: int, ahead_chunks: Sequence[int | None]) -> list[dict[str, Any]]:
        """Live sessions that make chunks as fast as they can (the service today), or a few ahead of their viewers."""
        run, rows = Run(horizon_s=1200.0, warmup_s=300.0), []
        for ahead in ahead_chunks:
            study = replace(self, mix=(replace(SESSION, ahead_chunks=ahead),))
            fleet = self.fleet(denoisers, slots=denoisers if ahead is None else 3 * denoisers)
            outcome = study.at_load(fleet, 0.8, run)
            concurrent = study.rate(denoisers, 0.8, run) * SESSION.session_s
            rows.append({"ahead_chunks": ahead, "sessions_per_denoiser": concurrent / denoisers} | row(fleet, outcome))
        return rows


def row(fleet: Fleet, outcome: Outcome) -> dict[str, Any]:
    """The figures of one simulation."""
    gpus = outcome.denoisers_mean * GPUS_PER_DENOISER + outcome.decoders_mean * GPUS_PER_DECODER
    return {"denoisers": fleet.denoisers, "decoders": fleet.decoders, "gpus_mean": gpus} | outcome.to_dict()
