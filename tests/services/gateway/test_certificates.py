"""Certificates that change while the gateway runs: whatever is half there, the pair in use stays in use."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from helios_services.client import AsyncHeliosClient, Connection, HeliosError
from helios_services.config import ServiceConfig
from helios_services.gateway.server import Gateway
from support.authority import Authority
from support.gateway import serving


@dataclass(frozen=True)
class Mutual:
    """A gateway that wants client certificates, and the files that it reads."""

    gateway: Gateway
    certificate: Path
    key: Path
    clients: Path
    authority: Authority

    async def takes(self, ours: Authority, theirs: Authority, name: str) -> bool:
        """Whether a client with a certificate of `ours` reaches the gateway, and that shows one of `theirs`."""
        certificate, key = await asyncio.to_thread(ours.issue, name)
        connection = Connection(ca_file=theirs.file, certificate_file=certificate, key_file=key)
        async with AsyncHeliosClient(f"localhost:{self.gateway.port}", connection) as client:
            try:
                return bool(await client.models())
            except HeliosError as error:
                if error.code is grpc.StatusCode.UNAVAILABLE:
                    return False
                raise


@pytest.fixture
async def mutual(config: ServiceConfig, tmp_path: Path) -> AsyncIterator[Mutual]:
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("gateway")
    clients = tmp_path / "clients.pem"
    clients.write_bytes(authority.file.read_bytes())
    options = {"tls_certificate_file": str(certificate), "tls_key_file": str(key), "tls_client_ca_file": str(clients)}
    async with serving(config, **options) as gateway:
        yield Mutual(gateway, certificate, key, clients, authority)


@pytest.mark.parametrize(
    "state", ["the certificate first", "the key first", "no key", "an empty key", "no authorities"]
)
async def test_what_is_half_exchanged_is_not_used(mutual: Mutual, tmp_path: Path, state: str) -> None:
    newer = Authority(tmp_path, "newer")
    certificate, key = newer.issue("renewed")
    match state:
        case "the certificate first":
            os.replace(certificate, mutual.certificate)
        case "the key first":
            os.replace(key, mutual.key)
        case "no key":
            mutual.key.unlink()
        case "an empty key":
            mutual.key.write_bytes(b"")
        case "no authorities":
            mutual.clients.unlink()
    assert await mutual.takes(mutual.authority, mutual.authority, "one")
    assert not await mutual.takes(newer, mutual.authority, "two")
    for source, target in zip(newer.issue("whole"), (mutual.certificate, mutual.key), strict=True):
        os.replace(source, target)
    mutual.clients.write_bytes(newer.file.read_bytes())
    assert await mutual.takes(newer, newer, "three")
    assert not await mutual.takes(mutual.authority, newer, "four")


async def test_files_that_change_all_the_time_keep_nobody_out(mutual: Mutual, tmp_path: Path) -> None:
    """Each pair is written in two steps, as by a process that renews it; handshakes come in between."""
    ended = asyncio.Event()

    async def renew() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            for source, target in zip(
                mutual.authority.issue(f"pair{number}"), (mutual.certificate, mutual.key), strict=True
            ):
                os.replace(source, target)
                await asyncio.sleep(0.005)

    renewing = asyncio.create_task(renew())
    try:
        taken = [await mutual.takes(mutual.authority, mutual.authority, f"client{number}") for number in range(30)]
    finally:
        ended.set()
        await renewing
    assert all(taken)
