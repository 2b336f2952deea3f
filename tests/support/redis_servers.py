"""Real redis-servers that tests start, kill and restart on the same port: one alone, and three as a cluster."""

import contextlib
import subprocess
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from helios_services.jobs.embedded import _binary, free_port
from support.redis_clients import answers
from support.waiting import wait_until

SLOTS = 16384
BUS_PORT_OFFSET = 10000


class RedisServer:
    """One server with an append-only file, synced at each write as the service's own are."""

    def __init__(self, folder: Path, **options: str) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = _port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "logfile": "redis.log",
            **options,
        }
        self.client = Redis.from_url(self.url, socket_timeout=30.0)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def command(self, *parts: str | int) -> Any:
        """Sends a command."""
        return self.client.execute_command(*parts)  # type: ignore[no-untyped-call]

    def start(self) -> None:
        """Starts it and waits until it answers."""
        flags = [part for name, value in self._options.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen([_binary(), *flags], stdout=subprocess.DEVNULL)
        wait_until(self._answers)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Ends it."""
        self.client.close()
        self.kill()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "redis.log").read_text()[-2000:]
        return answers(self.client)


class RedisCluster:
    """Three primaries that share the slots."""

    def __init__(self, folder: Path) -> None:
        options = {"cluster-enabled": "yes", "cluster-node-timeout": "15000"}
        self.nodes = [RedisServer(folder / str(number), **options) for number in range(3)]
        bounds = [SLOTS * number // 3 for number in range(4)]
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER ADDSLOTS", *range(bounds[number], bounds[number + 1]))
            node.command("CLUSTER MEET", "127.0.0.1", self.nodes[0].port)
        self.wait()

    def wait(self) -> None:
        """Until all nodes agree that the cluster is whole."""
        wait_until(
            lambda: all(self._state(node) == {"cluster_state": "ok", "cluster_known_nodes": "3"} for node in self.nodes)
        )

    def owner(self, key: str) -> RedisServer:
        """The node that has the key's slot."""
        slot = self.slot(key)
        ports = [row[2][1] for row in self.nodes[0].command("CLUSTER SLOTS") if row[0] <= slot <= row[1]]
        (owner,) = [node for node in self.nodes if [node.port] == ports]
        return owner

    def slot(self, key: str) -> int:
        """The key's slot."""
        return int(self.nodes[0].command("CLUSTER KEYSLOT", key))

    def move(self, slot: int, source: RedisServer, target: RedisServer) -> int:
        """Moves a slot with all its keys, as resharding tools do; the number of keys."""
        ids = {node.port: node.command("CLUSTER MYID").decode() for node in (source, target)}
        target.command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source.port])
        source.command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target.port])
        moved = 0
        while keys := source.command("CLUSTER GETKEYSINSLOT", slot, 100):
            source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 60_000, "KEYS", *keys)
            moved += len(keys)
        for node in (target, source, *(node for node in self.nodes if node not in (source, target))):
            node.command("CLUSTER SETSLOT", slot, "NODE", ids[target.port])
        return moved

    def close(self) -> None:
        """Ends all nodes."""
        for node in self.nodes:
            node.close()

    @staticmethod
    def _state(node: RedisServer) -> dict[str, str]:
        with contextlib.suppress(RedisError):
            info = node.command("CLUSTER INFO")
            lines = info if isinstance(info, dict) else dict(line.split(":") for line in info.decode().split())
            return {name: str(lines[name]) for name in ("cluster_state", "cluster_known_nodes")}
        return {}


def _port() -> int:
    """A free port whose cluster bus port is a port, too."""
    while True:
        port = free_port()
        if port + BUS_PORT_OFFSET < 65536:
            return port
