"""API keys, tenants, scopes, and TLS with and without client certificates."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf.message_factory import GetMessageClass

from helios.v1 import video_generation_pb2 as pb
from helios.v1.video_generation_pb2_grpc import VideoGenerationStub
from helios_services.client import AsyncHeliosClient, Connection, HeliosError
from helios_services.config import ConfigError, ServiceConfig
from helios_services.gateway.guard.caller import SCOPES, Scope
from helios_services.gateway.guard.keys import KeyRing, new_key
from helios_services.gateway.server import Gateway
from services.gateway.conftest import Worker
from support.authority import Authority
from support.gateway import serving
from support.processes import HELIOS

EVERYTHING = frozenset({Scope.SUBMIT, Scope.READ, Scope.CANCEL})
Keys = dict[str, str]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """Keys by name, and their file."""
    made = {
        "alice": new_key("alice", "a", EVERYTHING),
        "bob": new_key("bob", "b", EVERYTHING),
        "reader": new_key("reader", "a", frozenset({Scope.READ})),
        "root": new_key("root", "ops", frozenset({Scope.ADMIN})),
    }
    write(tmp_path, [entry.model_dump(mode="json") for _, entry in made.values()])
    return {name: key for name, (key, _) in made.items()}


def write(folder: Path, entries: list[dict[str, Any]]) -> None:
    (folder / "keys.yaml").write_text(yaml.safe_dump({"keys": entries}))


@pytest.fixture
def config(config: ServiceConfig, keys: Keys, tmp_path: Path) -> ServiceConfig:
    gateway = config.gateway.model_copy(update={"api_keys_file": str(tmp_path / "keys.yaml")})
    return config.model_copy(update={"gateway": gateway})


class Callers:
    """Clients with different keys of one gateway."""

    def __init__(self, gateway: Gateway, keys: Keys) -> None:
        self._target, self._keys = f"127.0.0.1:{gateway.port}", keys
        self._clients: list[AsyncHeliosClient] = []

    def __call__(self, name: str) -> AsyncHeliosClient:
        self._clients.append(AsyncHeliosClient(self._target, Connection(api_key=self._keys.get(name, name))))
        return self._clients[-1]

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


@pytest.fixture
async def callers(gateway: Gateway, keys: Keys) -> AsyncIterator[Callers]:
    callers = Callers(gateway, keys)
    yield callers
    await callers.close()


@pytest.mark.parametrize("key", ["", "alice", "alice.wrong", "nobody.x", "alice.", ".", "alice.é"])
async def test_without_a_valid_key_nothing_gets_in(callers: Callers, key: str) -> None:
    client = AsyncHeliosClient(callers._target, Connection(api_key=key)) if key != "alice.é" else callers("alice.x")
    with pytest.raises(HeliosError, match="a valid API key is needed") as caught:
        await client.submit("a lake")
    assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(HeliosError):
        async for _ in client.watch("x"):
            pass
    await client.close()


async def test_a_job_exists_for_its_tenant_only(callers: Callers, worker: Worker, tmp_path: Path) -> None:
    alice, bob, root = callers("alice"), callers("bob"), callers("root")
    job = await alice.submit("a lake", num_frames=33, idempotency_key="k")
    other = await bob.submit("a lake", num_frames=33, idempotency_key="k")
    assert other.id != job.id  # idempotency keys are a tenant's own
    for attempt in (
        bob.get(job.id),
        bob.cancel(job.id),
        bob.update_prompt(job.id, "a sea"),
        bob.submit("a sea", continue_from=job.id),
        anext(bob.stream(job.id)),
        anext(bob.watch(job.id)),
        bob.download(job.id, tmp_path / "x"),
    ):
        with pytest.raises(HeliosError, match="does not exist") as caught:
            await attempt
        assert caught.value.code is grpc.StatusCode.NOT_FOUND
    assert [each.id async for each in bob.list()] == [other.id]
    assert [each.id async for each in callers("reader").list()] == [job.id]
    assert [each.id async for each in root.list()] == [other.id, job.id]
    assert (await root.cancel(other.id)).state == pb.JOB_STATE_CANCELLED
    assert (await worker.claim()).job.spec.tenant == "a"
    file = tmp_path / "cat.png"
    await asyncio.to_thread(file.write_bytes, b"x")
    media = await alice.upload(file)
    with pytest.raises(HeliosError, match=f"media '{media.id}' does not exist"):
        await bob.submit("a lake", image_id=media.id)
    assert (await alice.submit("a lake", image_id=media.id)).params.image_id == media.id


def requests_about(job_id: str, media_id: str) -> dict[str, list[Any]]:
    """For every call of the API, requests that name a job or an upload wherever they can."""
    requests: dict[str, list[Any]] = {}
    for method in pb.DESCRIPTOR.services_by_name["VideoGeneration"].methods:
        made = []
        for field in method.input_type.fields:
            if field.name == "job_id":
                made.append(GetMessageClass(method.input_type)(job_id=job_id))
        requests[method.name] = made
    for request in requests["UpdatePrompt"]:
        request.prompt = "a sea"
    params = [
        pb.GenerationParams(prompt="a sea", continue_from=job_id),
        pb.GenerationParams(prompt="a sea", image_id=media_id),
    ]
    submissions = [pb.SubmitJobRequest(params=each) for each in params]
    requests["SubmitJob"] = list(submissions)
    requests["GenerateVideo"] = [pb.GenerateVideoRequest(job=each) for each in submissions]
    attach = pb.InteractRequest(attach=pb.StreamVideoRequest(job_id=job_id))
    requests["Interact"] = [attach, *(pb.InteractRequest(start=each) for each in submissions)]
    return requests


ABOUT_NOTHING = {"ListJobs", "ListModels", "UploadMedia"}
"""Calls that name neither a job nor an upload."""
ODD_IDS = ("", "*", "a:b", "../a", "a b", "\0", "\n", "é", "{}", "a" * 5000)


async def codes(gateway: Gateway, key: str, requests: dict[str, list[Any]]) -> dict[str, set[str]]:
    """The codes of these calls with a key."""
    found: dict[str, set[str]] = {}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub: Any = VideoGenerationStub(channel)
        for name, messages in requests.items():
            for message in messages:
                sent = iter([message]) if name == "Interact" else message
                call = getattr(stub, name)(sent, metadata=(("authorization", f"Bearer {key}"),), timeout=60)
                found.setdefault(name, set()).add((await call.code()).name)
    return found


async def test_no_call_reaches_another_tenants_job_or_upload(
    gateway: Gateway, callers: Callers, keys: Keys, tmp_path: Path
) -> None:
    """Whatever calls there will be: each is either here, or fails this test until somebody has thought about it."""
    alice = callers("alice")
    job = await alice.submit("a lake", num_frames=33)
    file = tmp_path / "cat.png"
    await asyncio.to_thread(file.write_bytes, b"x")
    requests = requests_about(job.id, (await alice.upload(file)).id)
    assert {name for name, made in requests.items() if not made} == ABOUT_NOTHING
    found = await codes(gateway, keys["bob"], requests)
    for name in ("RequeueJob", "PurgeJob"):
        assert found.pop(name) == {"PERMISSION_DENIED"}
    assert found.keys() == requests.keys() - ABOUT_NOTHING - {"RequeueJob", "PurgeJob"}
    assert {code for codes in found.values() for code in codes} == {"NOT_FOUND"}
    assert (await alice.get(job.id)) == job


@pytest.mark.parametrize("odd", ODD_IDS, ids=repr)
async def test_odd_ids_are_nothings(gateway: Gateway, callers: Callers, keys: Keys, odd: str) -> None:
    requests = requests_about(odd, odd)
    if not odd:  # unset, in these
        for name in ("SubmitJob", "GenerateVideo", "Interact"):
            requests[name] = []
    found = await codes(gateway, keys["root"], requests)
    assert {code for codes in found.values() for code in codes} == {"NOT_FOUND"}


async def test_scopes(callers: Callers) -> None:
    reader = callers("reader")
    assert len(await reader.models()) == 1
    for attempt in (reader.submit("a lake"), reader.cancel("x"), reader.update_prompt("x", "y")):
        with pytest.raises(HeliosError, match="lacks the scope") as caught:
            await attempt
        assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
    methods = {method.name for method in pb.DESCRIPTOR.services_by_name["VideoGeneration"].methods}
    assert set(SCOPES) == methods | {"CreateToken", "DeleteJob"}  # which HTTP has alone


async def test_keys_change_without_a_restart_and_a_broken_file_changes_nothing(
    callers: Callers, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helios_services.gateway.guard.keys.RELOAD_S", 0.0)
    alice = callers("alice")
    await alice.submit("a lake")
    (tmp_path / "keys.yaml").write_text("keys: [{")
    await alice.submit("a lake")
    key, entry = new_key("carol", "a", EVERYTHING)
    write(tmp_path, [entry.model_dump(mode="json")])
    with pytest.raises(HeliosError, match="a valid API key"):
        await alice.submit("a lake")
    await callers(key).submit("a lake")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("keys: [{", "is no YAML"),
        ("keys: 2024-13-45", "is no YAML"),
        ("keys: [{id: a b, sha256: x, tenant: t}]", "keys.0.id"),
        ("keys: [{id: a, secret: hunter2, tenant: t}]", "keys.0.secret: Extra inputs"),
        (f"keys: [{{id: a, sha256: {'a' * 64}, tenant: t}}, {{id: a, sha256: {'b' * 64}, tenant: t}}]", "same id"),
    ],
)
def test_a_bad_key_file_is_explained_without_its_values(content: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        KeyRing(str(tmp_path / "keys.yaml"))
    assert named in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_keys_are_made_on_the_command_line(tmp_path: Path) -> None:
    made = subprocess.run(
        [HELIOS, "keys", "new", "ci", "--tenant", "a", "--scope", "read"], capture_output=True, text=True
    )
    (tmp_path / "keys.yaml").write_text(made.stdout)
    key = made.stderr.split(": ")[1].strip()
    assert key not in made.stdout
    metadata = (("authorization", f"Bearer {key}"),)
    assert KeyRing(str(tmp_path / "keys.yaml")).authenticate("GetJob", metadata).tenant == "a"
    refused = subprocess.run([HELIOS, "keys", "new", "ci", "--tenant", "a b"], capture_output=True, text=True)
    assert (refused.returncode, "tenant: 'a b'" in refused.stderr) == (1, True)


def test_keys_are_not_sent_in_the_clear() -> None:
    with pytest.raises(ValueError, match=r"is not sent to 'example\.org:443' in the clear"):
        Connection(api_key="k").channel("example.org:443")


# ---- TLS ----


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.mark.parametrize("mutual", [False, True])
async def test_tls(config: ServiceConfig, keys: Keys, authority: Authority, tmp_path: Path, mutual: bool) -> None:
    certificate, key = authority.issue("gateway")
    options = {"tls_certificate_file": str(certificate), "tls_key_file": str(key)}
    if mutual:
        options["tls_client_ca_file"] = str(authority.file)
    mine, my_key = authority.issue("client")
    stranger = Authority(tmp_path, "stranger")
    trusting = Connection(
        api_key=keys["alice"], ca_file=authority.file, certificate_file=mine if mutual else None,
        key_file=my_key if mutual else None,
    )  # fmt: skip
    async with serving(config, **options) as gateway:
        target = f"localhost:{gateway.port}"
        async with AsyncHeliosClient(target, trusting) as client:
            assert (await client.submit("a lake")).state == pb.JOB_STATE_QUEUED
        wrong = [Connection(api_key=keys["alice"]), Connection(api_key=keys["alice"], ca_file=stranger.file)]
        if mutual:
            wrong.append(Connection(api_key=keys["alice"], ca_file=authority.file))
        for connection in wrong:
            async with AsyncHeliosClient(target, connection) as client:
                with pytest.raises(HeliosError) as caught:
                    await client.submit("a lake")
                assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        # the certificate is exchanged while the gateway runs
        newer = Authority(tmp_path, "newer")
        for old, new in zip((certificate, key), newer.issue("renewed"), strict=True):
            os.replace(new, old)
        if not mutual:
            async with AsyncHeliosClient(target, Connection(api_key=keys["alice"], ca_file=newer.file)) as client:
                assert (await client.submit("a lake")).state == pb.JOB_STATE_QUEUED


async def test_half_a_certificate_is_refused(config: ServiceConfig) -> None:
    with pytest.raises(ConfigError, match="must be given together"):
        await serving(config, tls_key_file="/nowhere.key").__aenter__()
    with pytest.raises(ConfigError, match=r"gateway.tls_key_file: /nowhere.key: No such file"):
        await serving(config, tls_key_file="/nowhere.key", tls_certificate_file="/nowhere.crt").__aenter__()
