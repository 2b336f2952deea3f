"""The rooms of the gateway: only one of them knows gRPC, and a door is no more than a translation."""

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import MessageToDict, ParseDict

import helios_services
from helios.v1 import video_generation_pb2 as pb
from helios_services.config import ServiceConfig
from helios_services.gateway.calls.api import Api
from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.drain import Drain
from helios_services.gateway.guard.guard import Guard
from helios_services.gateway.guard.in_progress import InProgress
from helios_services.gateway.guard.keys import KeyRing, Quotas, new_key
from helios_services.gateway.guard.metrics import CallMetrics
from helios_services.gateway.guard.refusal import Refusal
from helios_services.gateway.metrics import GatewayMetrics
from helios_services.jobs.connector import Connector
from helios_services.messages import job_message

IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+import\b|import\s+([\w.]+))", re.MULTILINE)
ROOT = Path(next(iter(helios_services.__path__)))


def imports(file: Path) -> list[str]:
    """The modules that a file names in import statements, wherever they stand."""
    return [name for pair in IMPORT.findall(file.read_text()) for name in pair if name]


def test_one_room_knows_grpc() -> None:
    knowing = {
        file.relative_to(ROOT).as_posix()
        for file in ROOT.glob("**/*.py")
        if any(name.split(".")[0].startswith("grpc") or name.endswith("_pb2_grpc") for name in imports(file))
    }
    outside = {name for name in knowing if not name.startswith(("gateway/grpc/", "client/"))}
    assert outside == set()
    assert {"gateway/grpc/door.py", "gateway/grpc/handlers.py"} <= knowing


def test_rooms_below_the_doors_import_none_of_them() -> None:
    for room in ("gateway/calls", "gateway/guard", "webhooks", "config"):
        for file in (ROOT / room).glob("*.py"):
            assert not any(name.startswith("helios_services.gateway.grpc") for name in imports(file)), file
    for room in ("webhooks", "config"):
        for file in (ROOT / room).glob("*.py"):
            assert not any(name.startswith("helios_services.gateway") for name in imports(file)), file
    for file in (ROOT / "config").glob("*.py"):
        assert not any(name.startswith("helios_services.webhooks") for name in imports(file)), file
    for file in (ROOT / "gateway/guard").glob("*.py"):
        assert not any(name.startswith("helios_services.gateway.calls") for name in imports(file)), file


def test_calls_and_guard_load_without_grpc() -> None:
    code = (
        "import sys, helios_services.gateway.calls.api, helios_services.gateway.guard.guard;"
        "import helios_services.webhooks.sender; print([name for name in sys.modules if name.startswith('grpc')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


class JsonDoor:
    """A door of another kind, to be compared with what a door may hold: translation, and nothing else."""

    def __init__(self, api: Api, guard: Guard) -> None:
        self._api, self._guard = api, guard

    async def submit(self, headers: dict[str, str], body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The code, and the job or what is wrong."""
        try:
            with self._guard.call("SubmitJob", headers.items()) as call:
                job = await self._api.submit(call, ParseDict(body, pb.SubmitJobRequest()))
                return "OK", MessageToDict(job_message(job))
        except Refusal as refusal:
            wrong = {violation.field: violation.description for violation in refusal.violations}
            return refusal.code.name, wrong or {"quota": refusal.quota, "again_s": refusal.retry_after_s}


@pytest.fixture
async def door(config: ServiceConfig, tmp_path: Path) -> AsyncIterator[tuple[JsonDoor, dict[str, str], GatewayMetrics]]:
    """A door, the headers that open it, and what is counted."""
    key, entry = new_key("k", "acme", frozenset({Scope.SUBMIT}), quotas=Quotas(max_queued=1))
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({"keys": [entry.model_dump(mode="json")]}))
    connector, metrics = Connector(config.redis, config.jobs), GatewayMetrics()
    store, notifier = connector.store(), connector.notifier()
    keys = KeyRing(str(tmp_path / "keys.yaml"))
    guard = Guard(keys, InProgress(10, 5), CallMetrics(metrics.registry, "json"))
    api = Api(config, store, notifier, metrics, Drain())
    yield JsonDoor(api, guard), {"authorization": f"Bearer {key}"}, metrics
    await store.close()


async def test_another_door_needs_no_rule_of_its_own(door: tuple[JsonDoor, dict[str, str], GatewayMetrics]) -> None:
    json, key, metrics = door
    body = {"params": {"prompt": "a lake"}}
    assert (await json.submit({}, body))[0] == "UNAUTHENTICATED"
    code, wrong = await json.submit(key, {"params": {"prompt": "a lake", "height": 100}})
    assert (code, list(wrong)) == ("INVALID_ARGUMENT", ["params.height"])
    code, job = await json.submit(key, body)
    assert (code, job["params"]["prompt"]) == ("OK", "a lake")
    code, wrong = await json.submit(key, body)
    assert (code, wrong["quota"]) == ("RESOURCE_EXHAUSTED", "max_queued")
    assert wrong["again_s"] > 0
    counted = {
        code: metrics.registry.get_sample_value("helios_json_requests_total", {"method": "SubmitJob", "code": code})
        for code in ("OK", "UNAUTHENTICATED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
    }
    assert set(counted.values()) == {1.0}
