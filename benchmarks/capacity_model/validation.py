"""The model against the service itself: same arrivals, the run's own stage times."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from random import Random
from statistics import mean, median
from typing import Any

from benchmarks.capacity_model.arrivals import Arrival, poisson
from benchmarks.capacity_model.inputs import Fleet, JobClass, Rank, Run, StageTimes
from benchmarks.capacity_model.real_run import Seen, run_trace, running_service
from benchmarks.capacity_model.simulation import simulate

KIND = JobClass(name="short", rank=Rank.NORMAL, share=1.0, chunks=(1, 2, 3))
SLOTS = 2
ALONE = (1, 1, 1, 4, 4)
"""Chunks of the jobs that run alone first: they show what lies between the stages."""
JOBS, BURST_JOBS = 20, 10
LOAD = 0.75
MODEL_SEEDS = range(20)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is compared."""

    chunks_per_s: float
    queue_wait_mean_s: float
    queue_wait_p50_s: float


def validate(seeds: Sequence[int]) -> dict[str, Any]:
    """Poisson arrivals by each seed, and jobs that all come at once, through the service and through the model."""
    with running_service(slots=SLOTS) as client:
        alone = [run_trace(client, [0.0], [chunks])[0] for chunks in (1, *ALONE)][1:]  # the first warms up
        rate = LOAD / (mean(KIND.chunks) * mean(_busiest_s(job, k) for job in alone for k in range(len(job.ready_s))))
        rows = []
        for seed in seeds:
            random = Random(seed)
            chunks = [random.choice(KIND.chunks) for _ in range(JOBS)]
            arrivals = list(poisson([(0.0, rate)], [KIND], until_s=10 * JOBS / rate, seed=seed))[:JOBS]
            seen = run_trace(client, [arrival.at_s for arrival in arrivals], chunks)
            rows.append(compare(f"Poisson, seed {seed}", seen, alone))
        chunks = [KIND.chunks[index % 3] for index in range(BURST_JOBS)]
        rows.append(compare("all at once", run_trace(client, [0.0] * BURST_JOBS, chunks), alone))
    errors = {
        kind: {name: median(abs(row[kind][name]) for row in rows) for name in rows[0][kind]}
        for kind in ("replayed_error", "error")
    }
    return {"slots": SLOTS, "poisson_load": LOAD, "jobs_per_row": JOBS, "rows": rows, "median_error": errors}


def measured_times(alone: Sequence[Seen], run: Sequence[Seen]) -> StageTimes:
    """Stages as this run's chunks report them; what lies between them of jobs that ran alone."""

    def samples(stage: str, jobs: Sequence[Seen]) -> tuple[float, ...]:
        return tuple(stages[stage] for job in jobs for stages in job.stage_s if stage in stages)

    gaps = [b - a - _busiest_s(job, k + 1) for job in alone for k, (a, b) in enumerate(_pairs(job.ready_s))]
    call_s = max(median(gaps), 0.0)
    first_s = median(job.ready_s[0] - job.started_s - sum(_work_s(job.stage_s[0])) for job in alone)
    text_s = samples("text", run) or (0.0,)
    return StageTimes(
        denoise_s=samples("denoise", run),
        decode_s=samples("decode", run),
        encode_s=samples("encode", run),
        text_s=tuple(s + max(first_s - 2 * call_s, 0.0) for s in text_s),
        call_s=call_s,
        claim_s=max(min(job.wait_s for job in run), 0.0),
        publish_s=median(job.ended_s - job.ready_s[-1] for job in run),
        source="measured in the run itself",
    )


def predicted(times: StageTimes, seen: Sequence[Seen], *, seed: int, replayed: bool) -> Figures:
    """The model's, for the arrivals as they were. replayed: with each chunk's own times instead of draws."""
    ordered = sorted(seen, key=lambda job: job.created_s)
    arrivals = [
        Arrival(
            at_s=job.created_s - ordered[0].created_s,
            kind=KIND,
            chunks=len(job.ready_s),
            own_s=tuple((s["denoise"], s["decode"] + s["encode"]) for s in job.stage_s) if replayed else (),
        )
        for job in ordered
    ]
    fleet = Fleet(denoisers=1, decoders=1, slots=SLOTS, slots_per_dispatcher=SLOTS, router="serve")
    outcome = simulate(times, fleet, iter(arrivals), Run(drain=True, seed=seed))
    return Figures(
        chunks_per_s=outcome.every.chunks / outcome.end_s,
        queue_wait_mean_s=outcome.mean_wait_s,
        queue_wait_p50_s=outcome.every.queue_wait_p50_s,
    )


def measured(seen: Sequence[Seen]) -> Figures:
    """The service's."""
    waits = sorted(job.wait_s for job in seen)
    span_s = max(job.ended_s for job in seen) - min(job.created_s for job in seen)
    return Figures(
        chunks_per_s=sum(len(job.ready_s) for job in seen) / span_s,
        queue_wait_mean_s=mean(waits),
        queue_wait_p50_s=waits[len(waits) // 2],
    )


def compare(name: str, seen: Sequence[Seen], alone: Sequence[Seen]) -> dict[str, Any]:
    times = measured_times(alone, seen)
    truth = asdict(measured(seen))
    guesses = [asdict(predicted(times, seen, seed=seed, replayed=False)) for seed in MODEL_SEEDS]
    replay = asdict(predicted(times, seen, seed=0, replayed=True))
    guess = {key: mean(g[key] for g in guesses) for key in truth}
    return {
        "run": name,
        "jobs": len(seen),
        "chunks": sum(len(job.ready_s) for job in seen),
        "stage_s_mean": {
            "denoise": mean(times.denoise_s), "decode": mean(times.decode_s), "encode": mean(times.encode_s),
            "text": mean(times.text_s), "call": times.call_s, "claim": times.claim_s, "publish": times.publish_s,
        },
        "measured": truth,
        "predicted": guess,
        "predicted_range": {key: [min(g[key] for g in guesses), max(g[key] for g in guesses)] for key in truth},
        "replayed": replay,
        "error": {key: _error(guess[key], truth[key]) for key in truth},
        "replayed_error": {key: _error(replay[key], truth[key]) for key in truth},
        "records": [asdict(job) for job in seen],
    }  # fmt: skip


def _error(guess: float, truth: float) -> float:
    return guess / truth - 1.0 if truth else 0.0


def _work_s(stages: dict[str, float]) -> list[float]:
    return [stages.get(stage, 0.0) for stage in ("text", "denoise", "decode", "encode")]


def _busiest_s(job: Seen, index: int) -> float:
    """The slower of the two halves of the pipeline."""
    stages = job.stage_s[index]
    return max(stages["denoise"], stages["decode"] + stages["encode"])


def _pairs(values: Sequence[float]) -> list[tuple[float, float]]:
    return list(pairwise(values))
