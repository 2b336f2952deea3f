"""Back up and restore, by the documents' own commands on a real redis-server: jobs are there afterwards and go on."""

import asyncio
import os
import random
import re
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from helios_services.config import JobsConfig, RedisConfig, ServiceConfig
from helios_services.jobs.embedded import EmbeddedRedis, _binary
from helios_services.jobs.records import Claim, JobSpec
from helios_services.jobs.state import JobState
from k8s.redis_pod import redis_pod
from services.gateway.conftest import Worker, fragment
from support.redis_clients import blocking_client

ROOT = Path(__file__).parents[2]
JOBS = JobsConfig(lease_s=0.5, heartbeat_s=0.2)
"""A lease that has lapsed by the time the copy is restored."""
CHUNK_BYTES = 200_000


def section(document: str, title: str) -> list[str]:
    """The shell blocks of a document's section."""
    text = (ROOT / "docs" / document).read_text()
    (body,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"^```sh(?: cluster)?\n(.*?)^```", body, re.MULTILINE | re.DOTALL)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """redis-cli and redis-check-rdb, beside the server that is used here unless they are installed."""
    folder, server = tmp_path / "tools", Path(_binary())
    folder.mkdir()
    # the server checks a snapshot when it is called by that name
    (folder / "redis-check-rdb").symlink_to(server)
    cli = server.with_name("redis-cli")
    (folder / "redis-cli").symlink_to(cli if cli.exists() else str(shutil.which("redis-cli")))
    return folder


def run(script: str, folder: Path, tools: Path, stdin: Path | None = None, **environ: str) -> str:
    """Runs shell commands, each of which must succeed."""
    env = {**os.environ, **environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    with (stdin or Path(os.devnull)).open("rb") as source:
        done = subprocess.run(
            ["sh", "-euc", script], cwd=folder, env=env, stdin=source, capture_output=True, timeout=120
        )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode()


class Jobs:
    """A job in each stage of its life, and what must be left of them."""

    def __init__(self, config: ServiceConfig, scratch: Path) -> None:
        self._config, self._scratch = config, scratch
        self.queued = self.running = self.done = ""

    async def make(self) -> None:
        """One that is done, one that runs and has its first chunk, one that waits."""
        worker = Worker(self._config)
        self.done, self.running, self.queued = [await self._submit(worker) for _ in range(3)]
        claim = await worker.claim()
        await self._finish(worker, claim, b"finished")
        running = await worker.claim()
        assert running.job.id == self.running
        await worker.append(running, 0, CHUNK_BYTES)
        await worker.store.close()

    async def check(self) -> None:
        """All of it is there; the two that had not ended do, under whoever claims them."""
        patient = self._config.model_copy(update={"jobs": JobsConfig(lease_s=600.0)})
        worker = Worker(patient)
        assert (await worker.store.get(self.done)).state is JobState.SUCCEEDED
        assert await worker.store.fragment(self.done, 1) == fragment(1, CHUNK_BYTES)
        await asyncio.sleep(JOBS.lease_s)  # which makes the first lease lapse, and must not make the next ones
        claims = {claim.job.id: claim for claim in [await worker.claim(), await worker.claim()]}
        assert set(claims) == {self.running, self.queued}
        assert (claims[self.running].checkpoint, claims[self.running].job.chunks_done) == (b"state", 1)
        assert (claims[self.queued].checkpoint, claims[self.queued].job.chunks_done) == (None, 0)
        for job_id, claim in claims.items():
            await self._finish(worker, claim, job_id.encode())
            assert (await worker.store.get(job_id)).state is JobState.SUCCEEDED
            chunks = [await worker.store.fragment(job_id, index) for index in range(2)]
            assert chunks == [fragment(index, CHUNK_BYTES) for index in range(2)]
        assert (Path(self._config.artifacts) / f"{self.done}.mp4").read_bytes() == b"finished"
        await worker.store.close()

    async def _submit(self, worker: Worker) -> str:
        spec = JobSpec(model=self._config.model.name, params={"prompt": "a lake", "fps": 24}, chunks_total=2)
        return (await worker.store.submit(uuid4().hex, spec)).id

    async def _finish(self, worker: Worker, claim: Claim, video: bytes) -> None:
        for index in range(claim.job.chunks_done, 2):
            await worker.append(claim, index, CHUNK_BYTES)
        await worker.publish(claim, video, self._scratch)


async def test_one_machine(tmp_path: Path, tools: Path) -> None:
    back_up, restore = section("operations.md", "Back up")
    state = tmp_path / "state"
    for name in ("helios.yaml", "keys.yaml"):
        (tmp_path / name).write_text(f"# {name}\n")
    server = EmbeddedRedis.start(state)
    redis = RedisConfig(url=server.url, socket_timeout_s=30.0)
    jobs = Jobs(ServiceConfig(state_dir=state, redis=redis, jobs=JOBS), tmp_path)
    try:
        await jobs.make()
        run(back_up, tmp_path, tools, HELIOS_STATE_DIR=str(state))
    finally:
        server.stop()
    shutil.rmtree(state / "artifacts")
    for file in (state / "redis").iterdir():
        file.unlink() if file.is_file() else shutil.rmtree(file)
    for name in ("helios.yaml", "keys.yaml"):
        (tmp_path / name).unlink()

    run(restore, tmp_path, tools, HELIOS_STATE_DIR=str(state))
    assert (tmp_path / "keys.yaml").read_text() == "# keys.yaml\n"
    server = EmbeddedRedis.start(state)
    try:
        jobs._config = jobs._config.model_copy(update={"redis": RedisConfig(url=server.url, socket_timeout_s=30.0)})
        await jobs.check()
    finally:
        server.stop()
    server = EmbeddedRedis.start(state)  # and once more: what was restored is kept like everything else
    try:
        with blocking_client(server.url) as client:
            assert client.hget("helios:{default}:job:" + jobs.queued, "state") == b"succeeded"
    finally:
        server.stop()


def quiet_port() -> int:
    """A free port that the system gives to nobody who asks for any: it stays free between two servers."""
    while True:
        port = random.randrange(20_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


async def test_the_scripts_that_run_in_the_pod(tmp_path: Path) -> None:
    text = "".join(section("kubernetes.md", "Back up and restore"))
    back_up, restore = re.findall(r"sh -c '([^']+)'", text)
    folder, port = tmp_path / "pod", quiet_port()
    folder.mkdir()
    store = {"conf": "base/redis/job-store.conf", "users": "base/redis/users.job-store"}
    with redis_pod(folder, port, **store) as pod:
        jobs = Jobs(ServiceConfig(state_dir=tmp_path / "state", redis=pod.config(), jobs=JOBS), tmp_path)
        await jobs.make()
        pod.cli(back_up)
        shutil.move(folder / "data/backup.rdb", tmp_path / "jobs.rdb")
        with pod.client("admin") as client:
            client.flushall()
            client.set("since", "the back-up")
        pod.cli(restore, stdin=tmp_path / "jobs.rdb")
        assert [path.name for path in (folder / "data").iterdir()] == ["appendonly.aof"]
    with redis_pod(folder, port, **store) as pod:
        with pod.client("admin") as client:
            assert client.get("since") is None
            assert client.config_get("appendonly") == {"appendonly": "yes"}
        await jobs.check()
