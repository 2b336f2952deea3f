"""Kills and cuts at random under load: `python -m tests.faults.chaos --seed 7 --minutes 5`.

Two gateways, three stand-in workers, a real redis-server (append-only file), and a TCP proxy before each of them. The
seed fixes the faults and their times, which are printed; which request they hit depends on the machine. At the end all
faults are lifted, everything has to drain, and chaos_check.py looks at it from outside.
"""

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest has it

from faults.chaos_check import check, drain
from faults.chaos_load import Load
from faults.proxy import FaultProxy, Mode, sha_of
from faults.quick_service import Worker
from faults.stand_in_worker import Plan

from helios_services.config import GatewayConfig, JobsConfig, RedisConfig, ServiceConfig
from helios_services.jobs.keys import Keys
from support.processes import GatewayProcess
from support.redis_servers import RedisServer
from support.waiting import wait_until

GATEWAYS, WORKERS = 2, 3
CHUNK_S = 0.05
GAP_S = 1.0
"""Mean time between two faults."""
JOBS = JobsConfig(lease_s=1.5, heartbeat_s=0.3, max_attempts=2, max_queued=200)
NETWORK = ("cut", "half-open", "delay", "drop", "swallow", "swallow")
FAULTS: dict[str, tuple[str, ...]] = {
    "worker": ("kill", "kill", "stop", "stop", "term", *NETWORK),
    "gateway": ("kill", "kill", "stop", "term", *NETWORK),
    "client": ("cut", "drop", "delay"),
    "redis": ("kill",),
}
"""What happens to whom. Of workers and gateways, what is not a signal happens to their connections with Redis; a
client's are those with a gateway."""
SWALLOWED = {
    "worker": ("claim", "begin", "append", "publish", "finish", "release"),
    "gateway": ("submit", "cancel", "requeue", "update_prompt"),
}
"""Scripts of the store whose answers get lost."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault. seconds: until it is lifted, or what died is started again."""

    at_s: float
    target: str
    what: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.at_s:7.2f} s  {self.target}: {self.what}, {self.seconds:.2f} s"


def schedule(seed: int, seconds: float) -> list[Fault]:
    """The faults of a run; the same for the same arguments."""
    chance = random.Random(seed)
    targets = ["redis", *(f"{kind} {n}" for kind in ("gateway", "client") for n in range(GATEWAYS))]
    targets += [f"worker {n}" for n in range(WORKERS)] * 2
    faults: list[Fault] = []
    at_s = chance.expovariate(1 / GAP_S)
    while at_s < seconds:
        target = chance.choice(targets)
        kind = target.split()[0]
        what = chance.choice(FAULTS[kind])
        if what == "swallow":
            what += f" {chance.choice(SWALLOWED[kind])}"
        faults.append(Fault(at_s=at_s, target=target, what=what, seconds=chance.uniform(0.1, 4.0)))
        at_s += chance.expovariate(1 / GAP_S)
    return faults


class Service:
    """The processes under fault. Each target has a lock: what happens to it happens one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis = RedisServer(folder / "redis")
        names = [f"{kind} {n}" for kind, count in (("gateway", GATEWAYS), ("worker", WORKERS)) for n in range(count)]
        self._proxies = {name: FaultProxy(self.redis.port) for name in names}
        self._proxies |= {f"client {n}": FaultProxy(0) for n in range(GATEWAYS)}
        self._locks = {name: threading.Lock() for name in (*self._proxies, "redis")}
        self.addresses = [f"127.0.0.1:{self._proxies[f'client {n}'].port}" for n in range(GATEWAYS)]
        self.config = self._config("gateway 0", GatewayConfig())
        self._gateways = {f"gateway {n}": self._gateway(n) for n in range(GATEWAYS)}
        self._workers = {f"worker {n}": self._worker(f"worker {n}") for n in range(WORKERS)}

    def suffer(self, fault: Fault) -> None:
        """Does it, waits, and lifts it."""
        with self._locks[fault.target]:
            lift = self._do(fault)
            time.sleep(fault.seconds)
            lift()

    def close(self) -> None:
        """Ends everything, whichever of it fails to end."""
        with ExitStack() as stack:
            stack.callback(self.redis.close)
            for group in (self._proxies, self._gateways, self._workers):
                for each in group.values():
                    stack.callback(each.close)

    def _do(self, fault: Fault) -> Callable[[], None]:
        kind = fault.target.split()[0]
        if kind == "redis":
            self.redis.kill()
            return self.redis.start
        if fault.what in ("kill", "stop", "term"):
            return self._signal(fault.target, fault.what)
        proxy = self._proxies[fault.target]
        match fault.what.split():
            case ["cut"]:
                proxy.set(Mode.CUT)
            case ["half-open"]:
                proxy.set(Mode.HALF_OPEN)
            case ["drop"]:
                proxy.drop()
            case ["delay"]:
                proxy.delay_s = 0.3
            case ["swallow", script]:
                proxy.swallow(sha_of(script))

        def lift() -> None:
            proxy.delay_s = 0.0
            if proxy.mode is not Mode.PASS:
                proxy.set(Mode.PASS)

        return lift

    def _signal(self, target: str, what: str) -> Callable[[], None]:
        process = (self._workers | self._gateways)[target]
        process.ps.send_signal({"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}[what])
        if what == "stop":
            return lambda: process.ps.send_signal(signal.SIGCONT)

        def again() -> None:
            process.close()
            if isinstance(process, Worker):
                self._workers[target] = self._worker(target)
            else:
                self._gateways[target] = self._gateway(int(target.split()[1]))

        return again

    def _config(self, name: str, gateway: GatewayConfig) -> ServiceConfig:
        redis = RedisConfig(url=self._proxies[name].url, socket_timeout_s=2.0)
        return ServiceConfig(state_dir=self.folder, redis=redis, jobs=JOBS, gateway=gateway)

    def _gateway(self, number: int) -> GatewayProcess:
        options = GatewayConfig(port=0, http_port=0, metrics_port=0, drain_s=2.0)
        name = f"gateway {number}"
        gateway = GatewayProcess(self._config(name, options), self.folder / f"{name}.log")
        self._proxies[f"client {number}"].retarget(int(gateway.address.rpartition(":")[2]))
        return gateway

    def _worker(self, name: str) -> Worker:
        plan = Plan(journal=str(self.folder / "journal"), chunk_s=CHUNK_S)
        return Worker(self._config(name, GatewayConfig()), plan, self.folder / f"{name}.log")


@contextmanager
def _service(folder: Path) -> Iterator[Service]:
    (folder / "journal").touch()
    service = Service(folder)
    try:
        yield service
    finally:
        service.close()


def run(seed: int, seconds: float, folder: Path) -> dict[str, int]:
    """One run; counts of what happened. Raises AssertionError, saying what does not hold."""
    faults = schedule(seed, seconds)
    print(f"seed {seed}, {seconds:.0f} s, {len(faults)} faults", *faults, sep="\n", flush=True)
    with _service(folder) as service:
        load = Load(service.addresses, seed)
        ended = Keys(service.config.redis.namespace).of("ended")
        wait_until(lambda: service.redis.client.hexists(ended, "succeeded"))  # everything is up
        started = time.monotonic()
        with ThreadPoolExecutor(max(len(faults), 1)) as pool:
            suffered = []
            for fault in faults:
                time.sleep(max(started + fault.at_s - time.monotonic(), 0.0))
                suffered.append(pool.submit(service.suffer, fault))
            time.sleep(max(started + seconds - time.monotonic(), 0.0))
        load.stop()
        for each in suffered:
            each.result()
        drain(service.addresses[0], load)
        counts = check(service.addresses[0], service.redis.client, service.config, load)
    return {"faults": len(faults), **counts}


def main() -> None:
    """One run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--minutes", type=float, default=5.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="helios-chaos-") as folder:
        counts = run(args.seed, args.minutes * 60, Path(folder))
    print("every invariant holds:", ", ".join(f"{count} {name}" for name, count in counts.items()))


if __name__ == "__main__":
    main()
