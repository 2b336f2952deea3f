"""Ray's token: without it a cluster that this service started answers nobody."""

import os
import shutil
import subprocess
import sys

import pytest

from helios_services.config import ConfigError
from helios_services.deployments.ray_token import authenticate_ray, check_authenticated
from helios_services.private_files import short_private_folder

SCRIPT = """
import os, sys
import grpc, ray
from helios_services.config import ServiceConfig
from helios_services.deployments.serving import _start

_start(ServiceConfig(), sys.argv[1])

@ray.remote(num_cpus=0)
def answer():
    return 42

assert ray.get(answer.remote()) == 42
call = grpc.insecure_channel(ray.get_runtime_context().gcs_address).unary_unary(
    "/ray.rpc.NodeInfoGcsService/GetClusterId"
)
for token in (None, "0" * 64, os.environ["RAY_AUTH_TOKEN"]):
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    try:
        call(b"", metadata=metadata, timeout=60)
        print("OK")
    except grpc.RpcError as error:
        print(error.code().name)
print(os.path.exists(os.path.expanduser("~/.ray/auth_token")))
ray.shutdown()
"""


def test_a_client_without_the_token_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    home = str(tmp_path_factory.mktemp("home"))
    folder = short_private_folder("helios-test-", 40)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)],
        env=clean | {"HOME": home},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    shutil.rmtree(folder)
    assert done.stdout.split() == ["UNAUTHENTICATED", "UNAUTHENTICATED", "OK", "False"], done.stderr[-2000:]


def test_authentication_cannot_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match=r"RAY_AUTH_MODE: 'disabled' is not allowed; allowed: token"):
        authenticate_ray()
    with pytest.raises(ConfigError, match="did not turn token authentication on"):
        check_authenticated()


def test_a_token_of_the_operators_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/run/secrets/ray")
    authenticate_ray()
    assert "RAY_AUTH_TOKEN" not in os.environ
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
    authenticate_ray()
    assert os.environ["RAY_AUTH_TOKEN"] == "f" * 64
