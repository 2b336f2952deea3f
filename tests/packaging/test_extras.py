"""What each extra brings: the wheel in fresh environments, as a user installs it."""

import os
import re
import subprocess
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from support.wheel import build_wheel, install_wheel

LOADED = "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
HEAVY = {"torch", "ray", "transformers", "numpy", "av"}


def run(*command: object) -> "subprocess.CompletedProcess[str]":
    """Away from the source tree, and without what the environment of the tests adds to Python's path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HELIOS_", "PYTHON"))}
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, cwd="/", env=kept, timeout=120
    )


def loaded_by(programs: Path, code: str) -> set[str]:
    """The top-level modules that a program has loaded at its end."""
    done = run(programs / "python", "-c", code + LOADED)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def client(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_wheel(wheel, "", tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def gateway(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_wheel(wheel, "gateway", tmp_path_factory.mktemp("gateway"))


def test_the_base_is_the_client_and_nothing_that_a_server_needs(client: Path) -> None:
    loaded = loaded_by(client, "from helios_services.client import AsyncHeliosClient, HeliosClient")
    assert "grpc" in loaded
    assert not loaded & (HEAVY | {"redis", "pydantic", "yaml", "aiohttp", "typer"})
    installed = {path.name for path in client.parent.glob("lib/*/site-packages/*")}
    assert not installed & (HEAVY | {"redis", "aiohttp"})


def test_the_base_command_helps_and_names_its_version(client: Path, wheel: Path) -> None:
    help_ = run(client / "helios", "--help")
    assert (help_.returncode, help_.stderr) == (0, "")
    for command in ("generate", "jobs", "gateway"):
        assert command in help_.stdout
    version = run(client / "helios", "--version")
    assert version.stdout == f"helios {wheel.name.split('-')[1]}\n"


def test_the_base_command_says_in_one_line_that_no_server_answers(client: Path) -> None:
    done = run(client / "helios", "jobs", "ls", "--server", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("helios: UNAVAILABLE: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["generate", "a lake"], "engine"),
        (["tiny", "/tmp/never-written"], "engine"),
        (["check", "/tmp"], "engine"),
        (["gateway"], "gateway"),
        (["keys", "new", "alice", "--tenant", "a"], "gateway"),
        (["up"], "serve"),
        (["worker"], "serve"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_command_whose_extra_is_missing_names_it(client: Path, command: list[str], extra: str) -> None:
    done = run(client / "helios", *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"helios: helios {command[0]}")
    assert done.stderr.endswith(f"is not installed: pip install 'helios-serve[{extra}]'\n")
    assert done.stderr.count("\n") == 1


def test_the_engine_names_its_extra_when_it_is_missing(client: Path) -> None:
    done = run(client / "python", "-c", "from helios_engine import HeliosPipeline")
    said = re.fullmatch(
        r"helios_engine\.extras\.MissingExtra: helios_engine\.HeliosPipeline needs '(\w+)', which is not installed: "
        r"pip install 'helios-serve\[engine\]'",
        done.stderr.splitlines()[-1],
    )
    assert said is not None, done.stderr
    assert said[1] in HEAVY | {"safetensors"}


def test_a_gateway_needs_neither_torch_nor_ray(gateway: Path) -> None:
    loaded = loaded_by(gateway, "import helios_services.gateway.main, helios_services.gateway.server")
    assert {"redis", "grpc", "grpc_health"} <= loaded
    assert not loaded & HEAVY
    help_ = run(gateway / "helios", "gateway", "--help")
    assert (help_.returncode, help_.stderr) == (0, "")
    assert "--port" in help_.stdout


def test_a_gateways_environment_can_make_keys_but_not_videos(gateway: Path) -> None:
    made = run(gateway / "helios", "keys", "new", "alice", "--tenant", "acme")
    assert made.returncode == 0, made.stderr
    assert "tenant: acme" in made.stdout
    refused = run(gateway / "helios", "generate", "a lake")
    assert refused.stderr.endswith("pip install 'helios-serve[engine]'\n")


def test_extras_ask_for_what_their_names_say(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    asked = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]

    def brings(extra: str) -> set[str]:
        return {one.name for one in asked if one.marker is not None and one.marker.evaluate({"extra": extra})}

    assert {one.name for one in asked if one.marker is None} == {
        *("grpcio", "protobuf", "googleapis-common-protos", "typer", "rich")
    }
    assert "torch" in brings("engine")
    assert not {"ray", "redis"} & brings("engine")
    assert "redis" in brings("gateway")
    assert not HEAVY & brings("gateway")
    assert {"ray", "helios-serve"} <= brings("serve")
    assert {"pytest", "diffusers", "helios-serve"} <= brings("dev")
    classifiers = metadata.get_all("Classifier", [])
    assert {f"Programming Language :: Python :: {version}" for version in ("3.11", "3.12")} <= set(classifiers)
