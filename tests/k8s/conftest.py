"""Builds of every overlay and of the overlays with components."""

from pathlib import Path

import pytest

from k8s.build import VARIANTS, variant
from k8s.manifests import Manifests


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the kustomizations that combine overlays with components."""
    return tmp_path_factory.mktemp("kustomizations")


@pytest.fixture(params=VARIANTS)
def manifests(request: pytest.FixtureRequest, scratch: Path) -> Manifests:
    """Each build in turn."""
    return Manifests(variant(request.param, scratch))


@pytest.fixture
def production(scratch: Path) -> Manifests:
    """The production overlay, a copy to break."""
    return Manifests(variant("production", scratch))
