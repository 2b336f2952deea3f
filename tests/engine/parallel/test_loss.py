"""A rank that dies or raises in the middle of a forward: the others raise, none hangs, no process is left."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.parallel.launch import Failure, Ranks
from engine.parallel.losses import follow_a_lost_leader, forward_with_loss, hang, send_to_a_stalled_follower
from engine.parallel.tiny import Case

TIMEOUT_S = 20.0
"""Seconds that an exchange may take; longer than a rank may stall while nothing is lost."""
SEND_TIMEOUT_S = 3.0
MODES = [Case(ulysses=3), Case(ring=3)]


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Ranks]:
    started = Ranks(3, tmp_path)
    yield started
    started.close()
    assert started.alive() == 0


@pytest.mark.parametrize("case", MODES, ids=["ulysses", "ring"])
def test_a_rank_is_killed(three: Ranks, case: Case) -> None:
    outcomes = three.outcomes(forward_with_loss, case, "kill", 60.0)  # noticed by its connections, not by the timeout
    assert outcomes[1] == Failure("ended with exit code -9")
    assert all("\nRuntimeError: " in outcomes[survivor].text for survivor in (0, 2))


@pytest.mark.parametrize("case", MODES, ids=["ulysses", "ring"])
def test_a_rank_raises(three: Ranks, case: Case) -> None:
    outcomes = three.outcomes(forward_with_loss, case, "raise", TIMEOUT_S)
    assert "ValueError: a bug on one rank" in outcomes[1].text
    assert all("\nRuntimeError: " in outcomes[other].text for other in (0, 2))
    assert three.alive() == 3


def test_the_leader_is_killed(three: Ranks) -> None:
    outcomes = three.outcomes(follow_a_lost_leader)
    assert outcomes[0] == Failure("ended with exit code -9")
    assert all("\nRuntimeError: " in outcomes[follower].text for follower in (1, 2))


def test_a_follower_takes_no_work(three: Ranks) -> None:
    leader, *_ = three.outcomes(send_to_a_stalled_follower, SEND_TIMEOUT_S)
    assert "\nRuntimeError: " in leader.text


def test_ranks_that_hang_are_ended(tmp_path: Path) -> None:
    hanging = Ranks(2, tmp_path, call_timeout_s=3.0)
    with pytest.raises(TimeoutError, match="rank 0 of 2 hangs in hang"):
        hanging.run(hang)
    assert hanging.alive() == 0
