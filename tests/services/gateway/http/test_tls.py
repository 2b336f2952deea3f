"""TLS at the HTTP door: the gateway's certificate, exchanged while it runs, and clients that must show one."""

import asyncio
import os
import ssl
from pathlib import Path

import httpx
import pytest

from helios_services.config import ConfigError, ServiceConfig
from helios_services.gateway.http.tls import server_context
from support.authority import Authority
from support.gateway import serving


async def takes(port: int, authority: Path, pair: tuple[Path, Path] | None = None) -> bool:
    """Whether a client that trusts the authority, and shows the pair, is answered."""
    context = ssl.create_default_context(cafile=str(authority))
    if pair is not None:
        context.load_cert_chain(*map(str, pair))
    async with httpx.AsyncClient(verify=context) as http:
        try:
            return (await http.get(f"https://localhost:{port}/v1/models")).status_code == 200
        except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
            return False


async def test_a_certificate_is_exchanged_without_a_restart(config: ServiceConfig, tmp_path: Path) -> None:
    older, newer = Authority(tmp_path, "older"), Authority(tmp_path, "newer")
    certificate, key = older.issue("gateway")
    files = {"tls_certificate_file": str(certificate), "tls_key_file": str(key)}
    async with serving(config, **files) as gateway:
        assert await takes(gateway.http_port, older.file)
        assert not await takes(gateway.http_port, newer.file)
        renewed = newer.issue("renewed")
        await asyncio.to_thread(os.replace, renewed[0], certificate)  # half of the exchange
        assert await takes(gateway.http_port, older.file)
        await asyncio.to_thread(os.replace, renewed[1], key)
        assert await takes(gateway.http_port, newer.file)
        assert not await takes(gateway.http_port, older.file)
        await asyncio.to_thread(key.unlink)
        assert await takes(gateway.http_port, newer.file)


async def test_clients_show_a_certificate_where_they_are_asked_for_one(config: ServiceConfig, tmp_path: Path) -> None:
    ours, theirs, strangers = (Authority(tmp_path, name) for name in ("ours", "theirs", "strangers"))
    certificate, key = ours.issue("gateway")
    files = {"tls_certificate_file": str(certificate), "tls_key_file": str(key), "tls_client_ca_file": str(theirs.file)}
    async with serving(config, **files) as gateway:
        assert await takes(gateway.http_port, ours.file, theirs.issue("client"))
        assert not await takes(gateway.http_port, ours.file)
        assert not await takes(gateway.http_port, ours.file, strangers.issue("stranger"))


async def test_what_is_no_certificate_is_named(config: ServiceConfig, tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path, "ours").issue("gateway")
    options = config.gateway.model_copy(update={"tls_certificate_file": str(certificate), "tls_key_file": str(key)})

    assert server_context(options) is not None
    await asyncio.to_thread(key.write_bytes, b"")
    with pytest.raises(ConfigError, match=r"gateway\.tls_certificate_file"):
        server_context(options)
    with pytest.raises(ConfigError, match="given together"):
        server_context(options.model_copy(update={"tls_key_file": ""}))
