"""`helios up` looks after what it has started, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from helios_services.client import HeliosClient
from helios_services.client.errors import HeliosError
from support.waiting import until

UP = [sys.executable, "-c", "from helios_services.cli import main; main()", "up"]


class Service:
    """A running `helios up`, in a process group of its own."""

    def __init__(self, process: "subprocess.Popen[str]", address: str) -> None:
        self.process, self.address = process, address

    @property
    def family(self) -> list[psutil.Process]:
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def child(self, *words: str) -> psutil.Process:
        """The process whose command line has these words."""
        (found,) = [each for each in self.family if all(word in " ".join(each.cmdline()) for word in words)]
        return found

    def answers(self) -> bool:
        """Whether the gateway serves, and Redis behind it."""
        with HeliosClient(self.address) as client:
            try:
                next(client.list(), None)
            except HeliosError:
                return False
            return True


@contextmanager
def up(checkpoint: Path, folder: Path) -> Iterator[Service]:
    environ = settings(checkpoint, folder)
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            UP, env=environ, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        ) as process,
    ):
        family: list[psutil.Process] = []
        try:
            assert process.stdout is not None
            line = next((line for line in process.stdout if line.startswith("helios is up: ")), "")
            assert line, (folder / "log").read_text()
            service = Service(process, line.split()[3])
            family = service.family
            yield service
        finally:
            for each in [*family, psutil.Process(process.pid)] if process.poll() is None else family:
                if each.is_running():
                    each.kill()


def settings(checkpoint: Path, folder: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HELIOS_", "RAY_AUTH_"))}
    return clean | {
        "HELIOS_STATE_DIR": str(folder / "state"),
        "HELIOS_MODEL__CHECKPOINT": str(checkpoint),
        "HELIOS_MODEL__DTYPE": "float32",
        "HELIOS_GATEWAY__PORT": "0",
        "HELIOS_GATEWAY__HTTP_PORT": "0",
        "HELIOS_GATEWAY__METRICS_PORT": "0",
        "HELIOS_DISPATCHER__METRICS_PORT": "0",
    }


def refusal(checkpoint: Path, folder: Path) -> str:
    """What another `helios up` says, which does not start."""
    ended = subprocess.run(
        UP, env=settings(checkpoint, folder), capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 1
    return ended.stderr


def alive(family: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended, zombies included."""
    return [each for each in family if each.is_running()]


async def test_killed_children_come_back_and_a_signal_to_the_group_ends_all_in_order(
    checkpoint: Path, tmp_path: Path
) -> None:
    with up(checkpoint, tmp_path) as service:
        assert service.answers()
        refused = refusal(checkpoint, tmp_path)
        assert f"{tmp_path / 'state'} is in use by the `helios up` with process id" in refused

        gateway = service.child("helios_services.gateway.main")
        gateway.kill()
        await until(lambda: not gateway.is_running())
        await until(service.answers)
        redis = service.child("redis-server")
        redis.kill()
        await until(lambda: not redis.is_running())
        await until(service.answers)

        family = service.family
        os.killpg(service.process.pid, signal.SIGTERM)
        assert service.process.wait(150) == 0, (tmp_path / "log").read_text()
        assert alive(family) == []


async def test_without_ray_it_ends_with_the_reason_and_nothing_is_left(checkpoint: Path, tmp_path: Path) -> None:
    with up(checkpoint, tmp_path) as service:
        family = service.family
        service.child("gcs_server").kill()
        assert service.process.wait(150) == 1
        assert "helios: ray: gcs_server (status -9) has ended" in (tmp_path / "log").read_text()
        assert alive(family) == []
