"""A short chaos run with a fixed seed; longer ones: `python -m tests.faults.chaos --minutes 30`."""

from pathlib import Path

from faults.chaos import FAULTS, run, schedule

SEED, SECONDS = 7, 25.0


def test_the_seed_is_the_schedule() -> None:
    faults = schedule(SEED, 3600)
    assert faults == schedule(SEED, 3600)
    assert faults != schedule(SEED + 1, 3600)
    assert {(fault.target.split()[0], fault.what.split()[0]) for fault in faults} == {
        (target, what) for target, whats in FAULTS.items() for what in whats
    }


def test_nothing_is_lost_or_doubled_whatever_dies(tmp_path: Path) -> None:
    counts = run(SEED, SECONDS, tmp_path)
    assert counts["succeeded"] > 0
    assert counts["cancelled"] > 0
    assert counts["streams read to the end"] > 0
