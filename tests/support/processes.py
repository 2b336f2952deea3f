"""Processes of the service that tests start, end and kill."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from helios_services.config import ServiceConfig

END_S = 150.0
HELIOS = str(Path(sys.executable).parent / "helios")


class ServiceProcess:
    """A process that says when it is up, and logs to a file. It has a session of its own.

    Attributes: `said`, what it said after its first words; `before`, the lines before that one; `ps`.
    """

    def __init__(
        self, *command: str, says: str, log: Path, given: str = "", env: Mapping[str, str] = os.environ
    ) -> None:
        """says: the first words of the line that it is waited for. given: its standard input."""
        self.log = log
        with log.open("a") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=env,
                start_new_session=True,
            )
        self.ps = psutil.Process(self._process.pid)
        assert self._process.stdin is not None
        self._process.stdin.write(given)
        self._process.stdin.close()
        self.said = self._line(says)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def ended(self, limit_s: float = END_S) -> int:
        """Waits for its end; the exit code."""
        assert self._process.stdout is not None
        code = self._process.wait(limit_s)
        self._process.stdout.close()
        return code

    def close(self) -> None:
        """Ends it."""
        if self.alive:
            self.terminate()
        self.ended()

    def _line(self, says: str) -> str:
        assert self._process.stdout is not None
        self.before: list[str] = []
        for line in self._process.stdout:
            if line.startswith(says):
                return line.removeprefix(says).strip()
            self.before.append(line.strip())
        self.ended()
        raise AssertionError(f"the process ended without saying {says!r}:\n{self.log.read_text()[-3000:]}")


class GatewayProcess(ServiceProcess):
    """A gateway, started as `helios up` does it."""

    def __init__(self, config: ServiceConfig, log: Path) -> None:
        command = (sys.executable, "-m", "helios_services.gateway.main")
        super().__init__(*command, says="gateway: ", log=log, given=config.model_dump_json())
        self.address = self.said
        self.port = int(self.address.rpartition(":")[2])
        self.http = next((line.removeprefix("http: ") for line in self.before if line.startswith("http: ")), "")
