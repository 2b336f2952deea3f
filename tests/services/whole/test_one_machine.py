"""What another user of the machine finds of `helios up`: nothing beyond loopback, no file, no Redis, no Ray."""

import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from helios.v1 import video_generation_pb2 as pb
from helios_services.client import HeliosClient
from support.raw_http2 import RawClient

NOBODY = pwd.getpwnam("nobody")
RAY_CALLS = (
    "/ray.rpc.NodeInfoGcsService/GetClusterId",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.events.EventAggregatorService/AddEvents",
    "/ray.serve.ASGIService/HandleRequest",
)
"""One of each service of Ray that has a port of its own."""
DEEP = "temporary" * 9
"""Longer than a socket's path may be, with what Ray puts below it."""


@dataclass(frozen=True)
class Service:
    """A running `helios up`. home: a folder that everybody may look into."""

    home: Path
    address: str
    process: psutil.Process

    @property
    def processes(self) -> list[psutil.Process]:
        """All of them."""
        return [self.process, *self.process.children(recursive=True)]

    def sockets(self, kind: str) -> list[Any]:
        """What they hold that is not one end of a connection."""
        held = (each for process in self.processes for each in process.net_connections(kind))
        return [each for each in held if not each.raddr]

    def ports(self) -> list[int]:
        """The TCP ports that they listen on."""
        return sorted({each.laddr.port for each in self.sockets("tcp")})


@pytest.fixture(scope="module")
def service(checkpoint: Path) -> Iterator[Service]:
    """With the temporary folder of a user that has a long one, and an ordinary umask."""
    home = Path(tempfile.mkdtemp(prefix="helios-test-"))
    home.chmod(0o755)
    temporary = home / DEEP
    temporary.mkdir()
    temporary.chmod(0o1777)
    settings = {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "HELIOS_STATE_DIR": str(home / "state"),
        "HELIOS_MODEL__CHECKPOINT": str(checkpoint),
        "HELIOS_MODEL__DTYPE": "float32",
        "HELIOS_GATEWAY__PORT": "0",
        "HELIOS_GATEWAY__HTTP_PORT": "0",
        "HELIOS_GATEWAY__METRICS_PORT": "0",
        "HELIOS_DISPATCHER__METRICS_PORT": "0",
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HELIOS_", "RAY_AUTH_"))}
    command = [sys.executable, "-c", "from helios_services.cli import main; main()", "up"]
    with subprocess.Popen(command, env=clean | settings, stdout=subprocess.PIPE, text=True, umask=0o022) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith("helios is up: "), said
            address = said.split()[3]
            with HeliosClient(address) as client:  # a video, so that its files are there
                job = client.submit("a lake", num_frames=33, height=128, width=192, pyramid_steps=(1, 1, 1))
                *_, ended = client.watch(job.id)
                assert ended.state == pb.JOB_STATE_SUCCEEDED
            yield Service(home=home, address=address, process=psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
    subprocess.run(["rm", "-rf", home], check=True)


def as_nobody(look: Callable[[], Any]) -> Any:
    """What a function finds that runs as another user; its result as JSON. As it is, where this user is not root."""
    if os.getuid() != 0:
        pytest.skip("only root can be another user")
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY.pw_gid)
            os.setuid(NOBODY.pw_uid)
            os.write(theirs, json.dumps(look()).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    return json.loads(found)


def reachable(roots: list[Path]) -> list[str]:
    """Files that can be read, written or connected to, and folders that can be listed, below the folders."""
    found = []
    for root in roots:
        for folder, _, files in os.walk(root):
            found.append(folder)
            for name in files:
                path = os.path.join(folder, name)
                if os.access(path, os.R_OK) or os.access(path, os.W_OK):
                    found.append(path)
    return found


def test_nothing_listens_beyond_loopback(service: Service) -> None:
    addresses = {each.laddr.ip for each in service.sockets("inet")}
    assert len(service.ports()) > 15
    plain = [ip_address(address) for address in addresses]
    plain = [address.ipv4_mapped or address if address.version == 6 else address for address in plain]
    assert [address for address in plain if not address.is_loopback] == []


def test_redis_has_no_port(service: Service) -> None:
    (redis,) = [process for process in service.processes if process.name() == "redis-server"]
    assert redis.net_connections("inet") == []
    assert (service.home / "state" / "redis" / "redis.sock").is_socket()


def test_no_file_can_be_reached(service: Service) -> None:
    ray = (service.home / "state" / "ray").resolve()
    assert ray.is_dir()
    assert list((service.home / "state" / "artifacts").glob("*.mp4"))
    roots = [service.home / "state", ray.parent]
    assert len(reachable(roots)) > 50  # they are there, for their own user
    assert as_nobody(lambda: reachable(roots)) == []


def test_everything_that_is_written_lies_in_those_folders(service: Service) -> None:
    ray = (service.home / "state" / "ray").resolve()
    written = {
        file.path
        for process in service.processes
        for file in process.open_files()
        if getattr(file, "mode", "r") != "r" and not file.path.startswith("/dev/")
    }
    sockets = {each.laddr for each in service.sockets("unix") if each.laddr and not each.laddr.startswith("@")}
    assert len(sockets) >= 3
    folders = (f"{service.home}/state/", f"{ray.parent}/")
    assert [path for path in written | sockets if not path.startswith(folders)] == []
    assert list((service.home / DEEP).iterdir()) == []
    mode = ray.parent.stat().st_mode
    assert mode & 0o077 == 0


def test_sockets_in_the_file_system_take_no_connection_of_another_user(service: Service) -> None:
    paths = sorted({each.laddr for each in service.sockets("unix") if each.laddr.startswith("/")})

    def look() -> list[str]:
        met = []
        for path in paths:
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect(path)
                    met.append("connected")
                except OSError as error:
                    met.append(type(error).__name__)
        return met

    assert as_nobody(look) == ["PermissionError"] * len(paths)


def test_ray_answers_nobody_without_its_token(service: Service) -> None:
    """On each port: a call of every service of Ray is refused, or unknown there; at most metrics are shown."""
    answers: dict[int, set[str]] = {}
    for port in service.ports():
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            for call in RAY_CALLS:
                try:
                    channel.unary_unary(call)(b"", timeout=60)  # type: ignore[arg-type]
                    answers.setdefault(port, set()).add("OK")
                except grpc.RpcError as error:
                    answers.setdefault(port, set()).add(error.code().name)
    assert {port for port, codes in answers.items() if "OK" in codes} == set()
    refusing = [port for port, codes in answers.items() if "UNAUTHENTICATED" in codes]
    assert len(refusing) >= 12  # GCS, raylet and its object manager, the driver, the controller, four replicas twice
    silent = {port for port, codes in answers.items() if codes == {"UNIMPLEMENTED"}}
    assert silent <= {int(service.address.rpartition(":")[2])} | agents(service)


def test_the_gateway_answers_its_own_user_only(service: Service) -> None:
    port = int(service.address.rpartition(":")[2])

    def look() -> str:
        with RawClient(port) as client:
            client.greet()
            return client.status(client.call("ListModels", b""))

    assert look() == str(grpc.StatusCode.OK.value[0])
    assert as_nobody(look) == str(grpc.StatusCode.UNAUTHENTICATED.value[0])


def agents(service: Service) -> set[int]:
    """Ports of Ray's agents for its dashboard, whose own calls are not among RAY_CALLS."""
    return {
        each.laddr.port
        for process in service.processes
        if process.name().startswith("ray::DashboardAg")
        for each in process.net_connections("tcp")
    }
