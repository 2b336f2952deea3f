"""The capacity model against closed forms and pipelines worked out by hand. Simulated time only."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from math import log
from pathlib import Path

import pytest

from benchmarks.capacity import RESULT
from benchmarks.capacity_model.arrivals import Arrival, poisson, trace
from benchmarks.capacity_model.inputs import Fleet, JobClass, Playback, Rank, ReplicaLoss, Run, Scaling, StageTimes
from benchmarks.capacity_model.outcome import Outcome
from benchmarks.capacity_model.search import smallest
from benchmarks.capacity_model.simulation import simulate
from benchmarks.capacity_model.stage_times import ASSUMED, stage_times
from benchmarks.capacity_model.studies import MIX as STUDIED_MIX
from benchmarks.capacity_model.studies import TWICE_THE_STEPS, Slo, Study
from benchmarks.capacity_model.tables import STUDIES
from benchmarks.capacity_page import CAPACITY_TABLES, PAGE
from benchmarks.counts import parts
from benchmarks.performance_page import updated
from benchmarks.player import play
from benchmarks.records import RESULTS
from benchmarks.sizes import SIZES

ONE = Fleet(denoisers=1, decoders=1)
VIDEO = JobClass(name="video", rank=Rank.NORMAL, share=1.0)
TIMES = StageTimes(denoise_s=(1.0,), decode_s=(0.25,), encode_s=(0.25,))


def run_jobs(
    times: StageTimes, fleet: Fleet, jobs: Sequence[tuple[float, int, Rank]], playback: Playback | None = None
) -> Outcome:
    """A trace of (when, chunks, rank), run until all have ended."""
    kinds = [replace(VIDEO, rank=rank) for _, _, rank in jobs]
    arrivals = trace([at for at, _, _ in jobs], kinds, [chunks for _, chunks, _ in jobs])
    return simulate(times, fleet, arrivals, Run(drain=True, playback=playback or Playback()))


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_waits_as_in_an_m_d_1_queue(load: float) -> None:
    times = StageTimes(denoise_s=(1.0,), decode_s=(0.0,))
    arrivals = poisson([(0.0, load)], [VIDEO], until_s=30_000, seed=1)
    outcome = simulate(times, replace(ONE, max_queued=10**9), arrivals, Run(horizon_s=30_000, warmup_s=500))
    assert outcome.mean_wait_s == pytest.approx(load / (2 * (1 - load)), rel=0.1)
    assert outcome.denoiser_utilisation == pytest.approx(load, rel=0.01)
    assert outcome.chunks_per_s == pytest.approx(load, rel=0.01)


def test_waits_as_in_an_m_m_1_queue() -> None:
    quantiles = tuple(-log(1 - (i + 0.5) / 2000) for i in range(2000))
    times = StageTimes(denoise_s=quantiles, decode_s=(0.0,))
    arrivals = poisson([(0.0, 0.6)], [VIDEO], until_s=60_000, seed=2)
    outcome = simulate(times, replace(ONE, max_queued=10**9), arrivals, Run(horizon_s=60_000, warmup_s=500))
    assert outcome.mean_wait_s == pytest.approx(0.6 / 0.4, rel=0.1)


def test_waits_as_in_an_m_d_c_queue_with_many_servers() -> None:
    """At half the load of 50 servers nobody waits (Erlang C: below 1e-6); at 1.5 times the load all are busy."""
    times, fleet = StageTimes(denoise_s=(1.0,), decode_s=(0.0,)), Fleet(denoisers=50, decoders=50)
    light, heavy = (
        simulate(times, fleet, poisson([(0.0, rate)], [VIDEO], until_s=2000, seed=3), Run(horizon_s=2000, warmup_s=100))
        for rate in (20.0, 75.0)
    )
    assert light.every.queue_wait_p99_s == 0.0
    assert heavy.denoiser_utilisation == pytest.approx(1.0, abs=1e-6)
    assert heavy.jobs["refused"] > 0


@pytest.mark.parametrize(
    ("decode_s", "end_s"),
    [
        (0.5, 0.1 + 0.2 + 4 * (1.0 + 0.05) + 0.5 + 0.03 + 0.4),  # the denoiser sets the pace
        (3.0, 0.1 + 0.2 + (0.05 + 1.0) + 4 * (3.0 + 0.03) + 0.4),  # the decoder does; denoising hides behind it
    ],
)
def test_pipeline_makespan_by_hand(decode_s: float, end_s: float) -> None:
    times = StageTimes(
        denoise_s=(1.0,), decode_s=(decode_s,), text_s=(0.2,), claim_s=0.1, begin_s=0.05, append_s=0.03, publish_s=0.4
    )
    outcome = run_jobs(times, ONE, [(0.0, 4, Rank.NORMAL)])
    assert outcome.end_s == pytest.approx(end_s)
    assert outcome.every.first_chunk_p50_s == pytest.approx(0.1 + 0.2 + 0.05 + 1.0 + decode_s + 0.03)


def test_denoising_is_one_chunk_ahead_of_decoding_and_no_further() -> None:
    """A slow decoder: while chunk k is decoded only k + 1 is denoised, so another slot gets the denoiser in between."""
    times = StageTimes(denoise_s=(1.0,), decode_s=(10.0,))
    outcome = run_jobs(times, replace(ONE, decoders=2, slots=2), [(0.0, 3, Rank.NORMAL), (0.0, 1, Rank.NORMAL)])
    assert outcome.every.first_chunk_p99_s == 12.0  # the other job's: denoised at once, after the first chunk
    assert outcome.end_s == 1.0 + 3 * 10.0


def test_priority_then_submission() -> None:
    jobs = [(0.0, 1, Rank.BATCH), (0.1, 1, Rank.BATCH), (0.2, 1, Rank.NORMAL), (0.3, 1, Rank.INTERACTIVE)]
    outcome = run_jobs(TIMES, ONE, [*jobs, (0.4, 1, Rank.INTERACTIVE)])
    busy = 1.5  # a slot is held up to the delivery
    assert outcome.ranks["interactive"].queue_wait_p50_s == pytest.approx(2 * busy - 0.4)
    assert outcome.ranks["normal"].queue_wait_p99_s == pytest.approx(3 * busy - 0.2)
    assert outcome.ranks["batch"].queue_wait_p99_s == pytest.approx(4 * busy - 0.1)


@pytest.mark.parametrize(("preemption", "wait_s"), [(False, 20.5 - 0.1), (True, 1.5 - 0.1)])
def test_preemption_at_a_chunk_boundary(preemption: bool, wait_s: float) -> None:
    jobs = [(0.0, 20, Rank.BATCH), (0.1, 2, Rank.INTERACTIVE)]
    outcome = run_jobs(TIMES, replace(ONE, preemption=preemption), jobs)
    assert outcome.ranks["interactive"].queue_wait_p50_s == pytest.approx(wait_s)
    assert outcome.jobs["succeeded"] == 2
    assert outcome.preemptions == preemption
    assert outcome.every.chunks == 22  # nothing is made twice


def test_a_lost_replica_costs_the_chunk_in_progress() -> None:
    loss = ReplicaLoss(mtbf_s=30.0, notice_s=0.5, max_losses=1000)
    fleet = replace(ONE, denoiser_loss=loss, start_s=4.0)
    calm, spot = (run_jobs(TIMES, f, [(0.0, 200, Rank.NORMAL)]) for f in (ONE, fleet))
    assert spot.every.chunks == calm.every.chunks == 200
    assert spot.lost_calls > 0
    longer_s = spot.end_s - calm.end_s
    # each loss: the part of the chunk that was done, and the new replica (the notice falls into its start)
    assert 4.0 * spot.lost_calls <= longer_s <= 5.0 * spot.lost_calls + 1e-6


def test_a_job_that_loses_its_replica_too_often_fails() -> None:
    loss = ReplicaLoss(mtbf_s=0.05, max_losses=3)
    outcome = run_jobs(TIMES, replace(ONE, denoiser_loss=loss, start_s=0.0), [(0.0, 5, Rank.NORMAL)])
    assert outcome.jobs == {"arrived": 1, "succeeded": 0, "failed": 1, "refused": 0, "unfinished": 0}
    assert outcome.lost_calls == 3


def test_no_deadline_is_missed_under_light_load_and_all_are_by_a_slow_denoiser() -> None:
    playback = Playback(fps=24, buffer_chunks=2)
    assert playback.chunk_s == 1.375
    jobs = [(60.0 * index, 10, Rank.NORMAL) for index in range(10)]
    assert run_jobs(TIMES, ONE, jobs, playback).every.missed_share == 0.0
    slow = run_jobs(replace(TIMES, denoise_s=(2.0,)), ONE, jobs, playback).every
    arrivals = [2.0 * (k + 1) + 0.5 for k in range(10)]
    watched = play(arrivals, playback.chunk_s, playback.buffer_chunks)
    assert slow.missed_share == pytest.approx(watched.underruns / 10)
    assert slow.stall_s == pytest.approx(10 * watched.stall_s)


def test_a_paced_session_keeps_to_its_viewer_and_leaves_the_denoiser_to_others() -> None:
    def session(ahead_chunks: int | None) -> Outcome:
        kind = JobClass(name="live", rank=Rank.INTERACTIVE, share=1.0, session_s=1.0, ahead_chunks=ahead_chunks)
        arrival = Arrival(at_s=0.0, kind=kind, chunks=1, session_s=137.5)
        return simulate(replace(TIMES, denoise_s=(0.5,)), ONE, iter([arrival]), Run(drain=True))

    assert session(None).every.chunks == pytest.approx(137.5 / 0.5, abs=2)
    paced = session(3)
    assert paced.every.chunks == pytest.approx(100 + 3, abs=2)  # what was played, and what is ahead of it
    assert paced.every.missed_share == 0.0
    assert paced.denoiser_utilisation == pytest.approx(0.5 / 1.375, abs=0.03)


def test_serve_router_looks_again_after_growing_pauses() -> None:
    """The denoiser is free at 1.0; the waiting job looks at 0, 0.025, 0.075, 0.175, 0.375, 0.775 and 1.275."""
    times = StageTimes(denoise_s=(1.0,), decode_s=(0.0,))
    jobs = [(0.0, 1, Rank.NORMAL), (0.0, 1, Rank.NORMAL)]
    immediate, serve = (
        run_jobs(times, replace(ONE, slots=2, router=router), jobs) for router in ("immediate", "serve")
    )
    assert immediate.end_s == pytest.approx(2.0)
    assert serve.end_s == pytest.approx(2.275)


MIX = (
    JobClass(name="live", rank=Rank.INTERACTIVE, share=0.3, session_s=10.0),
    JobClass(name="short", rank=Rank.NORMAL, share=0.4, chunks=(2, 8)),
    JobClass(name="long", rank=Rank.BATCH, share=0.3, chunks=(44,), denoise_factor=2.0),
)
ROUGH = Fleet(
    denoisers=6,
    decoders=3,
    slots=9,
    max_queued=20,
    start_s=20.0,
    preemption=True,
    denoiser_loss=ReplicaLoss(mtbf_s=200.0, max_losses=3),
    decoder_loss=ReplicaLoss(mtbf_s=200.0),
    scaling=Scaling(min_denoisers=2, max_denoisers=12, downscale_delay_s=20.0),
)


@pytest.mark.parametrize("router", ["immediate", "serve"])
@pytest.mark.parametrize("drain", [True, False])
def test_every_job_ends_once_whatever_happens(router: str, drain: bool) -> None:
    times = replace(TIMES, denoise_s=(0.3, 0.5, 0.9))

    rates = [(0.0, 0.2), (300.0, 1.5), (600.0, 0.1)]

    def once(seed: int) -> Outcome:
        arrivals = poisson(rates, MIX, until_s=900.0, seed=seed)
        fleet = replace(ROUGH, router=router)  # type: ignore[arg-type]
        return simulate(times, fleet, arrivals, Run(horizon_s=900.0, drain=drain, seed=seed))

    outcome = once(1)
    ends = outcome.jobs
    assert ends["arrived"] == sum(1 for _ in poisson(rates, MIX, until_s=900.0, seed=1))
    assert ends["arrived"] == ends["succeeded"] + ends["failed"] + ends["refused"] + ends["unfinished"]
    assert min(ends["succeeded"], ends["refused"], outcome.preemptions, outcome.lost_calls) > 0
    assert (ends["unfinished"] == 0) is drain
    assert 2.0 <= outcome.denoisers_mean <= 12.0
    assert outcome == once(1)
    assert outcome != once(2)


def test_scaling_adds_replicas_after_delay_and_start_and_takes_them_away_again() -> None:
    scaling = Scaling(min_denoisers=1, max_denoisers=8, upscale_delay_s=10.0, downscale_delay_s=30.0)
    fleet = Fleet(denoisers=1, decoders=1, start_s=50.0, max_queued=10**6)
    rates = [(0.0, 0.1), (200.0, 3.0), (800.0, 0.1)]

    def mean_wait(scaling: Scaling | None, start_s: float) -> Outcome:
        arrivals = poisson(rates, [VIDEO], until_s=1200.0, seed=5)
        changed = replace(fleet, scaling=scaling, start_s=start_s)
        return simulate(TIMES, changed, arrivals, Run(horizon_s=1200.0, drain=True))

    fixed, slow, fast = mean_wait(None, 50.0), mean_wait(scaling, 200.0), mean_wait(scaling, 50.0)
    assert fast.mean_wait_s < slow.mean_wait_s < fixed.mean_wait_s
    assert 1.5 < fast.denoisers_mean < 6.0  # it went up, and down again


def test_search_finds_the_smallest() -> None:
    for answer in (1, 2, 7, 100, 12_345):
        looked: list[int] = []

        def enough(size: int, answer: int = answer, looked: list[int] = looked) -> bool:
            looked.append(size)
            return size >= answer

        assert smallest(enough, at_least=1, resolution=0.0) == answer
        assert len(looked) < 60
    assert smallest(lambda size: size >= 1000, at_least=900, resolution=0.05) == pytest.approx(1000, rel=0.05)
    assert smallest(lambda size: False, at_least=1, at_most=50) is None


def test_stage_times_of_a_service_benchmark(tmp_path: Path) -> None:
    report = {
        "conditions": {"cpu": "a cpu"},
        "results": {
            "2 cores": {
                "service": {"stage_s": {"text": 0.1, "denoise": 2.0, "decode": 0.5, "encode": 0.25}},
                "overhead_ms": {"between": 50.0},
            }
        },
    }
    file = tmp_path / "service.json"
    file.write_text(json.dumps(report))
    times = stage_times(file)
    assert (times.denoise_s, times.decode_s, times.encode_s) == ((2.0,), (0.5,), (0.25,))
    assert times.call_s == 0.025
    assert times.source.startswith("measured")
    with pytest.raises(ValueError, match="3 cores"):
        stage_times(file, "3 cores")


def test_assumed_times_say_that_they_are_assumed() -> None:
    assert ASSUMED.source.startswith("ASSUMED, not measured")


def test_assumed_times_rest_on_the_counts_of_the_model() -> None:
    counted = parts(SIZES["gpu-full"])
    stages = sum(product.flops for stage in range(3) for product in counted[f"dit stage {stage}"])
    decoding = sum(product.flops for product in counted["vae decode"])
    assert list(ASSUMED.denoise_s) == pytest.approx([stages / 700e12])
    assert list(ASSUMED.decode_s) == pytest.approx([decoding / 200e12])
    assert f"{stages / 1e12:.0f} TFLOP of DiT" in ASSUMED.source
    assert f"{decoding / 1e12:.0f} TFLOP of VAE" in ASSUMED.source


@pytest.mark.parametrize("study", STUDIES)
def test_results_rest_on_the_assumed_times_as_they_are(study: str) -> None:
    """Otherwise: run `python -m benchmarks.capacity`, then `python -m benchmarks.capacity_page`."""
    kept = json.loads(RESULT.read_text())[study]["inputs"]["stage_times"]
    assert kept == json.loads(json.dumps(asdict(ASSUMED)))


def test_the_page_is_what_the_results_say() -> None:
    page = PAGE.read_text()
    assert updated(page, RESULTS, CAPACITY_TABLES) == page, "run python -m benchmarks.capacity_page"
    assert all(f"<!-- table: {name} -->" in page for name in CAPACITY_TABLES)


@pytest.mark.parametrize("slow", [replace(TIMES, denoise_s=(3.0,)), replace(TIMES, decode_s=(3.0,))])
def test_an_objective_that_no_fleet_meets_is_an_error(slow: StageTimes) -> None:
    study = Study(times=slow)
    with pytest.raises(ValueError, match=r"needed: at 0.1 jobs/s no fleet of up to \d+ denoisers meets the objective"):
        study.needed([0.1], Slo())


def test_twice_the_steps_need_twice_the_denoisers_and_no_more_decoders() -> None:
    once, twice = (Study(times=TIMES, mix=mix) for mix in (STUDIED_MIX, TWICE_THE_STEPS))
    assert twice.denoise_s == pytest.approx(2 * once.denoise_s)
    small, large = once.fleet(30), twice.fleet(60)
    assert small.decoders == large.decoders == 20
