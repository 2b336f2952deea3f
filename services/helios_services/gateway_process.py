"""A gateway in a process of its own, kept alive."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from helios_services.config import ConfigError, ServiceConfig
from helios_services.processes.keeper import Keeper, OnLost

STOP_MARGIN_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where a gateway is reached. grpc: host and port. http: a URL; empty for none."""

    grpc: str
    http: str


@contextmanager
def gateway_process(config: ServiceConfig, on_lost: OnLost) -> Iterator[Addresses]:
    """Yields the gateway's addresses, which stay. On exit the gateway drains.

    Raises ConfigError if it does not start.
    """
    process, addresses = _start(config)
    ports = {"port": _port(addresses.grpc), "http_port": _port(addresses.http) if addresses.http else None}
    same_ports = config.model_copy(update={"gateway": config.gateway.model_copy(update=ports)})

    def end(process: "subprocess.Popen[str]") -> None:
        _end(process, config.gateway.drain_s + STOP_MARGIN_S)

    keeper = Keeper("gateway", process, start=lambda: _start(same_ports)[0], end=end, on_lost=on_lost)
    try:
        yield addresses
    finally:
        keeper.close()


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _start(config: ServiceConfig) -> "tuple[subprocess.Popen[str], Addresses]":
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
    said: dict[str, str] = {}
    try:
        process.stdin.write(config.model_dump_json())
        process.stdin.close()
        while "gateway" not in said and (line := process.stdout.readline()):
            name, _, address = line.strip().partition(": ")
            said[name] = address
    except BrokenPipeError:
        pass
    if "gateway" not in said:
        _end(process, STOP_MARGIN_S)
        raise ConfigError("gateway: did not start; its message is above")
    return process, Addresses(grpc=said["gateway"], http=said.get("http", ""))


def _end(process: "subprocess.Popen[str]", patience_s: float) -> None:
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
