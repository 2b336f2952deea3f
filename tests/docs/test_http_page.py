"""Every command and program of docs/http.md runs as it stands, against a service that makes real video."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from helios_services.config import GatewayConfig, JobsConfig, RedisConfig, ServiceConfig
from helios_services.deployments.dispatch.dispatcher import Dispatcher
from helios_services.gateway.http.app import ROOMS
from helios_services.jobs.embedded import EmbeddedRedis
from support.gateway import serving
from support.stages import QuickStages

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
EXAMPLES = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SMALLER = {"640x384": "64x64"}
"""So that the examples are quick; the rest stands as it is."""


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    server = await asyncio.to_thread(EmbeddedRedis.start, tmp_path / "redis")
    config = ServiceConfig(
        state_dir=tmp_path,
        redis=RedisConfig(url=server.url),
        jobs=JobsConfig(lease_s=600.0),
        gateway=GatewayConfig(port=0, http_port=0, drain_s=1.5),
    )
    async with serving(config) as gateway:
        dispatcher = Dispatcher(config, QuickStages())
        yield f"localhost:{gateway.http_port}"
        await dispatcher.drain()
    await asyncio.to_thread(server.stop)


@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("ffmpeg"), reason="curl, ffmpeg: not installed")
async def test_the_examples_run(address: str, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    assert len(EXAMPLES) == 5
    for language, text in EXAMPLES:
        for old, new in (SMALLER | {"localhost:8080": address}).items():
            text = text.replace(old, new)
        command = ["bash", "-euo", "pipefail", "-c", text]
        if language == "python":
            command = [sys.executable, "-W", "ignore", "-c", text]
        environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        assert '"error":{' not in done.stdout, done.stdout
    for name in ("lake.mp4", "storm.mp4"):
        assert (folder / name).read_bytes()[4:8] == b"ftyp"


def test_every_call_is_on_the_page() -> None:
    calls = {
        (method, route.path)
        for room in ROOMS
        for route in room.router.routes
        for method in getattr(route, "methods", ())
        if "/realtime/" not in route.path and not re.search(r"\.(mp4|m4s)$", route.path)
    }
    said = set(re.findall(r"`(GET|POST|DELETE) (/[^`]*)`", PAGE))
    known = {(method, path.replace("{video_id}", "{id}")) for method, path in calls if method != "HEAD"}
    assert known == said
