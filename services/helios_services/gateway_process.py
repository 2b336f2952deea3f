"""A gateway in a process of its own, kept alive."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from helios_services.config import ConfigError, ServiceConfig
from helios_services.processes.keeper import Keeper, OnLost

STOP_MARGIN_S = 5.0


@contextmanager
def gateway_process(config: ServiceConfig, on_lost: OnLost) -> Iterator[str]:
    """Yields the gateway's address, which stays. On exit the gateway drains.

    Raises ConfigError if it does not start.
    """
    process, address = _start(config)
    port = int(address.rpartition(":")[2])
    same_port = config.model_copy(update={"gateway": config.gateway.model_copy(update={"port": port})})

    def end(process: "subprocess.Popen[str]") -> None:
        _end(process, config.gateway.drain_s + STOP_MARGIN_S)

    keeper = Keeper("gateway", process, start=lambda: _start(same_port)[0], end=end, on_lost=on_lost)
    try:
        yield address
    finally:
        keeper.close()


def _start(config: ServiceConfig) -> "tuple[subprocess.Popen[str], str]":
    # its own session: Ctrl-C in a terminal reaches this process, which ends the gateway in order
    process = subprocess.Popen(
        [sys.executable, "-m", "helios_services.gateway.main"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")},
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(config.model_dump_json())
        process.stdin.close()
        name, _, address = process.stdout.readline().strip().partition(" ")
    except BrokenPipeError:
        name = address = ""
    if name != "gateway:":
        _end(process, STOP_MARGIN_S)
        raise ConfigError("gateway: did not start; its message is above")
    return process, address


def _end(process: "subprocess.Popen[str]", patience_s: float) -> None:
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
