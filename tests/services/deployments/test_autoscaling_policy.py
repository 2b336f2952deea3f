"""The formula and the hold: tables, and what must be true of any work."""

import json
import re
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helios_services.config import AutoscalingConfig
from helios_services.deployments.autoscaling import board as work_board
from helios_services.deployments.autoscaling.board import BoardReader
from helios_services.deployments.autoscaling.need import Hold, Need, Scaler
from helios_services.jobs.work import Work

NEED = Need(deployment="denoiser", slots=20, backlog_target_s=60.0, live_utilization=0.8, assumed_chunk_s=1.5)
PACE = {"denoise": 2.0, "decode": 0.25, "encode": 0.25, "text": 0.5}


@pytest.mark.parametrize(
    ("work", "replicas"),
    [
        # nothing to do; a paused job keeps one
        ({}, 0),
        ({"paused_jobs": 3}, 1),
        # anything to do is one
        ({"queued_jobs": 1, "queued_chunks": 1}, 1),
        ({"running_jobs": 1, "running_chunks": 1}, 1),
        ({"queued_jobs": 1}, 1),
        # 2 s a chunk, 60 s: 30 chunks a replica
        ({"queued_jobs": 5, "queued_chunks": 30}, 1),
        ({"queued_jobs": 5, "queued_chunks": 31}, 2),
        ({"queued_jobs": 5, "queued_chunks": 20, "running_jobs": 1, "running_chunks": 41}, 3),
        # a job has one chunk in progress: no more replicas than jobs, and no more than the dispatchers drive
        ({"running_jobs": 2, "running_chunks": 1000}, 2),
        ({"running_jobs": 2, "running_chunks": 1000, "queued_jobs": 1}, 3),
        ({"running_jobs": 20, "running_chunks": 10_000, "queued_jobs": 900, "queued_chunks": 10_000}, 20),
        # live: 24/33 chunks a second at 2 s a chunk are 1.45 replicas, and 0.8 of one may be planned on
        ({"running_jobs": 3, "live_chunks_per_s": 24 / 33}, 2),
        ({"running_jobs": 3, "live_chunks_per_s": 2 * 24 / 33}, 3),
        ({"running_jobs": 3, "live_chunks_per_s": 0.4}, 1),
        # both kinds add up before they are rounded
        ({"running_jobs": 9, "live_chunks_per_s": 0.2, "queued_chunks": 15}, 1),
        ({"running_jobs": 9, "live_chunks_per_s": 0.2, "queued_chunks": 16}, 2),
    ],
)
def test_the_denoisers_that_work_needs(work: dict[str, Any], replicas: int) -> None:
    assert NEED.replicas(Work(pace_s=PACE, **work)) == replicas


@pytest.mark.parametrize(
    ("deployment", "work", "replicas"),
    [
        ("decoder", {"running_jobs": 20, "running_chunks": 120}, 1),  # 0.5 s a chunk, decoded and encoded
        ("decoder", {"running_jobs": 20, "running_chunks": 121}, 2),
        ("decoder", {"paused_jobs": 1}, 1),
        ("text-encoder", {"running_jobs": 20, "running_chunks": 9999, "live_chunks_per_s": 99}, 1),
        ("text-encoder", {"queued_jobs": 121, "queued_chunks": 121}, 2),
        ("text-encoder", {}, 0),
    ],
)
def test_decoders_follow_by_their_own_pace_and_text_encoders_by_jobs(
    deployment: str, work: dict[str, Any], replicas: int
) -> None:
    assert replace(NEED, deployment=deployment).replicas(Work(pace_s=PACE, **work)) == replicas


def test_the_pace_is_assumed_until_it_was_measured() -> None:
    work = Work(queued_jobs=9, queued_chunks=41)
    assert NEED.chunk_s(work) == 1.5
    assert NEED.replicas(work) == 2
    assert NEED.replicas(replace(work, pace_s={"denoise": 1.0, "decode": 9.0})) == 1


counts = st.integers(0, 5000)
works = st.builds(
    Work,
    queued_jobs=counts,
    queued_chunks=counts,
    running_jobs=counts,
    running_chunks=counts,
    paused_jobs=counts,
    live_chunks_per_s=st.floats(0, 1000),
    pace_s=st.fixed_dictionaries({}, optional={stage: st.floats(1e-4, 1e3) for stage in PACE}),
)
needs = st.builds(
    Need,
    deployment=st.sampled_from(["denoiser", "decoder", "text-encoder"]),
    slots=st.integers(1, 100),
    backlog_target_s=st.floats(0.1, 1e4),
    live_utilization=st.floats(0.05, 1),
    assumed_chunk_s=st.floats(1e-3, 1e3),
)


@given(needs, works)
def test_bounds(need: Need, work: Work) -> None:
    replicas, jobs = need.replicas(work), work.queued_jobs + work.running_jobs
    assert 0 <= replicas <= max(min(jobs, need.slots), min(work.paused_jobs, 1))
    assert (replicas == 0) == (jobs == 0 and work.paused_jobs == 0)


@given(needs, works, st.sampled_from(sorted(asdict(Work()).keys() - {"pace_s"})), st.integers(0, 5000))
def test_more_work_never_means_fewer_replicas(need: Need, work: Work, name: str, more: int) -> None:
    grown = replace(work, **{name: getattr(work, name) + more})
    assert need.replicas(grown) >= need.replicas(work)


@given(needs, works, st.lists(st.floats(0.1, 100), max_size=30), st.floats(0, 500))
def test_constant_work_means_a_constant_number(need: Need, work: Work, steps: list[float], window_s: float) -> None:
    hold, now, seen = Hold(window_s), 0.0, set()
    for step in [0.0, *steps]:
        now += step
        seen.add(hold(now, need.replicas(work)))
    assert len(seen) == 1


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(0, 9)), min_size=1, max_size=60), st.floats(0, 100))
def test_the_hold_is_the_largest_of_the_window(steps: list[tuple[float, int]], window_s: float) -> None:
    hold, now, past = Hold(window_s), 0.0, list[tuple[float, int]]()
    for step, number in steps:
        now += step
        past.append((now, number))
        assert hold(now, number) == max(n for at, n in past if at >= now - window_s)


def test_the_number_stays_while_nothing_is_known() -> None:
    scaler = Scaler(NEED, downscale_delay_s=10)
    assert scaler(0, None, target=5, recent_calls=0) == 5
    assert scaler(1, Work(), target=5, recent_calls=0) == 5  # idle, but it may have begun just now
    assert scaler(20, None, target=5, recent_calls=0) == 5
    assert scaler(21, Work(), target=5, recent_calls=0) == 0


def test_the_number_rises_at_once_and_falls_after_the_delay() -> None:
    scaler = Scaler(NEED, downscale_delay_s=10)
    assert scaler(0, Work(), target=0, recent_calls=0) == 0
    assert scaler(1, Work(queued_jobs=9, queued_chunks=100), target=0, recent_calls=0) == 3
    little = Work(running_jobs=1, running_chunks=1)
    assert [scaler(now, little, target=3, recent_calls=1) for now in (2, 11, 11.1)] == [3, 3, 1]


def test_the_last_replica_stays_while_serve_would_start_it_again() -> None:
    scaler = Scaler(NEED, downscale_delay_s=10)
    assert scaler(0, Work(), target=0, recent_calls=0.5) == 0
    assert scaler(20, Work(), target=4, recent_calls=0.5) == 1
    assert scaler(40, Work(), target=1, recent_calls=0.1) == 1
    assert scaler(60, Work(), target=1, recent_calls=0) == 0


class FakeStore:
    """A key-value store that answers when it is told to."""

    def __init__(self) -> None:
        self.answer: bytes | Exception | None = None
        self._asked = threading.Semaphore(0)

    def read(self) -> bytes | None:
        self._asked.release()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def wait(self, reads: int = 2) -> None:
        """Returns after that many reads more, the last but one of them dealt with."""
        while self._asked.acquire(blocking=False):
            pass
        for _ in range(reads):
            assert self._asked.acquire(timeout=120)


def sheet(identity: str, **work: int) -> bytes:
    return json.dumps({"id": identity, "work": asdict(Work(**work))}).encode()  # type: ignore[arg-type]


def test_the_board_believes_only_what_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_board, "READ_PERIOD_S", 0.01)
    monkeypatch.setattr(work_board, "STALE_S", 600.0)
    store = FakeStore()
    store.answer = sheet("a", queued_jobs=7)
    reader = BoardReader(store.read)
    store.wait()
    assert reader.latest() is None  # nobody knows how old it is
    store.answer = sheet("b", queued_jobs=7)
    store.wait(3)
    assert reader.latest() == Work(queued_jobs=7)
    store.answer = OSError("no answer")
    store.wait(3)
    assert reader.latest() == Work(queued_jobs=7)
    monkeypatch.setattr(work_board, "STALE_S", 0.0)
    assert reader.latest() is None


def test_the_reading_thread_ends_with_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_board, "READ_PERIOD_S", 0.01)
    before = set(threading.enumerate())
    reader = BoardReader(FakeStore().read)
    (thread,) = set(threading.enumerate()) - before
    del reader
    thread.join(120)
    assert not thread.is_alive()


def test_the_document_has_every_knob_and_no_other() -> None:
    text = (Path(__file__).parents[3] / "docs/autoscaling.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \| (?:[0-9.]+|auto) \|", text, re.MULTILINE)) == {
        *AutoscalingConfig.model_fields,
        "start_timeout_s",
    }
    for name, field in AutoscalingConfig.model_fields.items():
        default = field.default if isinstance(field.default, str) else f"{field.default:g}"
        assert f"| `{name}` | {default} |" in text
