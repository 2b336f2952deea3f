"""A process that ends by itself is started again, a bounded number of times in a row."""

import subprocess
import sys
import threading

import pytest

from helios_services.config import ConfigError
from helios_services.processes import keeper as module
from helios_services.processes.keeper import Keeper
from support.waiting import until


class Starts:
    """Processes as they are started, and how the next ones go: None runs until it is ended, a number is a status."""

    def __init__(self, *statuses: int | ConfigError | None) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        self.ended: list[subprocess.Popen[bytes]] = []
        self.reasons: list[str] = []
        self._statuses = list(statuses)
        self.lost = threading.Event()

    def start(self) -> "subprocess.Popen[bytes]":
        status = self._statuses.pop(0)
        if isinstance(status, ConfigError):
            raise status
        code = "import sys; sys.stdin.read()" if status is None else f"raise SystemExit({status})"
        self.started.append(subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE))
        return self.started[-1]

    def end(self, process: "subprocess.Popen[bytes]") -> None:
        process.kill()
        process.wait()
        self.ended.append(process)

    def reap(self) -> None:
        for process in self.started:
            process.wait()
            assert process.stdin is not None
            process.stdin.close()

    def on_lost(self, reason: str) -> None:
        self.reasons.append(reason)
        self.lost.set()

    def kept(self) -> Keeper:
        return Keeper("child", self.start(), start=self.start, end=self.end, on_lost=self.on_lost)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)


async def test_a_killed_process_is_replaced_until_the_keeper_is_closed() -> None:
    starts = Starts(None, ConfigError("the port is taken"), None)
    keeper = starts.kept()
    starts.started[0].kill()
    await until(lambda: len(starts.started) == 2)
    assert starts.started[1].poll() is None
    keeper.close()
    assert starts.started[1] in starts.ended
    assert starts.reasons == []
    starts.reap()


def test_one_that_always_ends_is_given_up_with_its_reason() -> None:
    starts = Starts(3, 3, 3, 3, 3, 3, 3)
    keeper = starts.kept()
    assert starts.lost.wait(120)
    keeper.close()
    assert len(starts.started) == module.TRIES
    assert starts.reasons == [f"child: ended {module.TRIES} times in a row; the last time with status 3"]
    starts.reap()


async def test_one_that_has_lived_long_starts_its_row_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEADY_S", 0.0)
    starts = Starts(*[3] * (module.TRIES + 2), None)
    keeper = starts.kept()
    await until(lambda: len(starts.started) == module.TRIES + 3)
    keeper.close()
    assert starts.reasons == []
    starts.reap()
