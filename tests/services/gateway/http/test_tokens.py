"""Tokens for browsers: what they allow, how they end, and that they are refused where an API key would be."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import pytest
import yaml

from helios_services.client import AsyncHeliosClient, Connection, HeliosError
from helios_services.config import ConfigError, ServiceConfig
from helios_services.gateway.guard import keys as key_ring
from helios_services.gateway.guard import tokens as token_files
from helios_services.gateway.guard.tokens import AUDIENCE, Tokens
from helios_services.gateway.server import Gateway
from helios_services.redaction import scrub
from support.gateway import serving

SECRET, NEXT = "s" * 40, "n" * 40


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The file of the secrets that sign."""
    path = tmp_path / "token-secrets"
    path.write_text(SECRET + "\n")
    return path


@pytest.fixture
async def gateway(config: ServiceConfig, keys: dict[str, str], secrets: Path, tmp_path: Path) -> AsyncIterator[Gateway]:
    files = {"api_keys_file": str(tmp_path / "keys.yaml"), "token_secrets_file": str(secrets)}
    async with serving(config, **files) as gateway:
        yield gateway


async def made(http: httpx.AsyncClient, key: str, **asked: Any) -> dict[str, Any]:
    """A token of this key."""
    answer = await http.post("/v1/realtime/tokens", json=asked, headers={"Authorization": key})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def bearer(gateway: Gateway, token: str) -> AsyncHeliosClient:
    """A client that presents it, at the other door."""
    return AsyncHeliosClient(f"127.0.0.1:{gateway.port}", Connection(api_key=token))


async def test_a_token_is_its_keys_tenant_and_account_and_no_more(
    http: httpx.AsyncClient, gateway: Gateway, keys: dict[str, str]
) -> None:
    token = await made(http, keys["alice"], scopes=["read"])
    assert 590 < token["expires_at"] - time.time() <= 600
    key = keys["alice"].removeprefix("Bearer ")
    async with bearer(gateway, key) as alice, bearer(gateway, token["token"]) as page:
        job = await alice.submit("a lake")
        assert (await page.get(job.id)).id == job.id
        with pytest.raises(HeliosError, match="token lacks the scope submit") as caught:
            await page.submit("a sea")
        assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
    other = await made(http, keys["bob"])
    async with bearer(gateway, other["token"]) as stranger:
        with pytest.raises(HeliosError, match="does not exist"):
            await stranger.get(job.id)


async def test_a_token_for_one_session_starts_it_once_and_sees_nothing_else(
    http: httpx.AsyncClient, gateway: Gateway, keys: dict[str, str]
) -> None:
    token = await made(http, keys["alice"], one_session=True)
    async with bearer(gateway, token["token"]) as page, bearer(gateway, keys["alice"].removeprefix("Bearer ")) as alice:
        other = await alice.submit("a lake")
        job = await page.submit("a sea")
        assert job.id == token["job_id"]
        assert (await page.submit("a sea")).id == job.id  # repeated, not again
        with pytest.raises(HeliosError) as caught:
            await page.submit("another sea")
        assert caught.value.code is grpc.StatusCode.ALREADY_EXISTS
        with pytest.raises(HeliosError, match="does not exist"):
            await page.get(other.id)
        with pytest.raises(HeliosError, match="for one session only"):
            await anext(page.list())
    watching = await made(http, keys["alice"], job_id=other.id)
    async with bearer(gateway, watching["token"]) as viewer:
        assert (await viewer.get(other.id)).id == other.id
        with pytest.raises(HeliosError, match="starts none"):
            await viewer.submit("a lake")


@pytest.mark.parametrize(
    ("asked", "param", "allowed"),
    [
        ({"expires_in_s": 5}, "expires_in_s", "greater than or equal to 10"),
        ({"expires_in_s": 7200}, "expires_in_s", "less than or equal to 3600"),
        ({"scopes": ["admin"]}, "scopes", "those of the key: submit, read, cancel"),
        ({"models": ["other"]}, "models", "helios-distilled"),
        ({"one_session": True, "job_id": "x"}, "one_session", "false"),
        ({"scope": ["read"]}, "scope", "Extra inputs are not permitted"),
    ],
)
async def test_wishes_that_are_refused(
    http: httpx.AsyncClient, keys: dict[str, str], asked: dict[str, Any], param: str, allowed: str
) -> None:
    answer = await http.post("/v1/realtime/tokens", json=asked, headers={"Authorization": keys["alice"]})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert allowed in error["fields"][0]["allowed"]


async def test_only_a_key_makes_tokens(http: httpx.AsyncClient, keys: dict[str, str]) -> None:
    assert (await http.post("/v1/realtime/tokens", json={})).status_code == 401
    token = (await made(http, keys["alice"]))["token"]
    answer = await http.post("/v1/realtime/tokens", json={}, headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
    reader = await http.post(
        "/v1/realtime/tokens", json={"scopes": ["submit"]}, headers={"Authorization": keys["reader"]}
    )
    assert reader.json()["error"]["param"] == "scopes"


@pytest.mark.parametrize("change", ["expired", "no expiry", "other secret", "no signature", "other audience"])
async def test_tokens_that_are_not_good(http: httpx.AsyncClient, change: str) -> None:
    now = int(time.time())
    claims = {"aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600, "scopes": ["read"], "models": []}
    claims |= {"job": "", "starts": True}
    if change == "expired":
        claims["exp"] = now - 60
    if change == "no expiry":
        del claims["exp"]
    if change == "other audience":
        claims["aud"] = "another"
    secret, algorithm = (NEXT if change == "other secret" else SECRET), "none" if change == "no signature" else "HS256"
    token = jwt.encode(claims, "" if change == "no signature" else secret, algorithm)
    answer = await http.get("/v1/models", headers={"Authorization": f"Bearer {token}"})
    error = answer.json()["error"]
    assert (answer.status_code, error.get("reason")) == (401, "TOKEN_EXPIRED" if change == "expired" else None)
    assert token not in answer.text


async def test_tokens_end_with_their_secret_and_with_their_key(
    http: httpx.AsyncClient, keys: dict[str, str], secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_files, "RELOAD_S", 0.0)
    monkeypatch.setattr(key_ring, "RELOAD_S", 0.0)
    token = (await made(http, keys["alice"]))["token"]

    async def good() -> bool:
        return (await http.get("/v1/models", headers={"Authorization": f"Bearer {token}"})).status_code == 200

    assert await good()
    secrets.write_text(f"{NEXT}\n{SECRET}\n")  # the new one signs, the old one is still good
    assert await good()
    newer = (await made(http, keys["alice"]))["token"]
    assert jwt.decode(newer, NEXT, ["HS256"], audience=AUDIENCE)["sub"] == "alice"
    secrets.write_text(f"{NEXT}\n")
    assert not await good()
    token = newer
    assert await good()
    entries = yaml.safe_load((tmp_path / "keys.yaml").read_text())["keys"]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({"keys": [each for each in entries if each["id"] != "alice"]}))
    assert not await good()


async def test_without_keys_or_secrets_there_are_no_tokens(
    config: ServiceConfig, keys: dict[str, str], tmp_path: Path
) -> None:
    async with serving(config) as gateway, httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.http_port}") as http:
        answer = await http.post("/v1/realtime/tokens", json={})
        assert "asks for no API keys" in answer.json()["error"]["message"]
    with_keys = serving(config, api_keys_file=str(tmp_path / "keys.yaml"))
    async with with_keys as gateway, httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.http_port}") as http:
        answer = await http.post("/v1/realtime/tokens", json={}, headers={"Authorization": keys["alice"]})
        assert "gateway.token_secrets_file" in answer.json()["error"]["message"]


@pytest.mark.parametrize("content", ["", "short\n", f"{SECRET}\nshort\n"])
def test_secrets_that_are_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secrets"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"gateway.token_secrets_file: .*32 characters") as caught:
        Tokens(str(path))
    assert "short" not in str(caught.value)


def test_tokens_are_scrubbed() -> None:
    token = jwt.encode({"sub": "alice"}, SECRET, "HS256")
    assert token.split(".")[2] not in scrub(f"a page came with {token} today")
