"""A command behind a process in front: signals, statuses, and nothing left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from support.waiting import until

COMMAND = """
import signal, subprocess, sys, threading
from helios_services.processes.own_session import in_own_session
in_own_session()
stop = threading.Event()
{before}
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: (print("told", number, flush=True), stop.set()))
left = subprocess.Popen(["sleep", "1000"], start_new_session={apart})
print("ready", flush=True)
{then}
"""
WAITS = "stop.wait(); left.kill(); left.wait(); sys.exit(7)"


@contextmanager
def command(then: str = WAITS, *, apart: bool = True, before: str = "") -> Iterator["subprocess.Popen[str]"]:
    """The command in a process group of its own, ready. Whatever becomes of it, nothing of it outlives the test."""
    script = COMMAND.format(then=then, apart=apart, before=before)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        family: list[psutil.Process] = []
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            family = psutil.Process(process.pid).children(recursive=True)
            assert len(family) == 2
            yield process
        finally:
            for each in family:
                if each.is_running():
                    each.kill()
            process.kill()


def printed(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_group_reaches_the_command_once_and_its_children_not_at_all(number: signal.Signals) -> None:
    with command(
        "stop.wait(); print(left.poll(), flush=True); left.kill(); left.wait(); sys.exit(7)", apart=False
    ) as up:
        os.killpg(up.pid, number)
        assert up.wait(60) == 7
        assert printed(up) == f"told {number.value}\nNone\n"


@pytest.mark.parametrize(
    ("then", "status", "told"),
    [
        ("sys.exit(3)", 3, ""),
        ("import os; os._exit(4)", 4, ""),
        ("import os; os.kill(os.getpid(), 9)", 128 + 9, "helios: was ended by SIGKILL\n"),
    ],
)
def test_whatever_ends_the_command_its_status_is_told_and_nothing_is_left(then: str, status: int, told: str) -> None:
    with command(f"stop.wait(); {then}") as up:
        left = psutil.Process(up.pid).children(recursive=True)
        os.kill(up.pid, signal.SIGTERM)
        assert up.wait(60) == status
        assert [each for each in left if each.is_running()] == []
        assert up.stderr is not None
        assert up.stderr.read() == told


def test_what_ignores_sigterm_is_killed() -> None:
    script = """
import subprocess
from helios_services.processes import own_session
own_session.PATIENCE_S = 0.2
own_session.in_own_session()
stubborn = "trap '' TERM; echo up; while :; do sleep 1; done"
left = subprocess.Popen(["sh", "-c", stubborn], start_new_session=True, stdout=subprocess.PIPE)
left.stdout.readline()
print(left.pid)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert not psutil.pid_exists(int(done.stdout))


async def test_a_command_whose_front_is_killed_is_told_to_end() -> None:
    with command() as up:
        family = psutil.Process(up.pid).children(recursive=True)
        up.kill()
        await until(lambda: not any(each.is_running() for each in family))
        assert printed(up) == f"told {signal.SIGTERM.value}\n"
