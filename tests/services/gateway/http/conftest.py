"""HTTP clients of the gateway."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import yaml

from helios_services.config import ServiceConfig
from helios_services.gateway.guard.caller import Scope
from helios_services.gateway.guard.keys import Quotas, new_key
from helios_services.gateway.server import Gateway

EVERYTHING = frozenset({Scope.SUBMIT, Scope.READ, Scope.CANCEL})


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway without keys."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.http_port}", timeout=60) as client:
        yield client


@pytest.fixture
def keys(config: ServiceConfig, tmp_path: Path) -> dict[str, str]:
    """Headers of each key of a file, by its name: alice and bob are of two tenants, reader may only read."""
    made = {
        "alice": new_key("alice", "acme", EVERYTHING),
        "bob": new_key("bob", "other", EVERYTHING),
        "reader": new_key("reader", "acme", frozenset({Scope.READ})),
        "narrow": new_key("narrow", "acme", EVERYTHING, quotas=Quotas(max_queued=1)),
    }
    entries = [entry.model_dump(mode="json") for _, entry in made.values()]
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({"keys": entries}))
    return {name: f"Bearer {key}" for name, (key, _) in made.items()}
