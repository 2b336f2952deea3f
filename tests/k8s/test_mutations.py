"""The checks notice: each break changes one thing in a copy of the production build and must be complained about."""

import copy
from pathlib import Path

import pytest

from k8s import artifacts, schemas
from k8s.breaks.artifacts import BREAKS as OF_ARTIFACTS
from k8s.breaks.artifacts import VOLUME
from k8s.breaks.credentials import BREAKS as OF_CREDENTIALS
from k8s.breaks.edits import Break, Check
from k8s.breaks.network import BREAKS as OF_THE_NETWORK
from k8s.breaks.pods import BREAKS as OF_PODS
from k8s.breaks.redis_servers import BREAKS as OF_REDIS
from k8s.breaks.references import BREAKS as OF_REFERENCES
from k8s.breaks.scaling import BREAKS as OF_SCALING
from k8s.breaks.schemas import BREAKS as OF_SCHEMAS
from k8s.breaks.schemas import CUSTOM
from k8s.breaks.service import BREAKS as OF_THE_SERVICE
from k8s.build import variant
from k8s.manifests import Manifests

PARTS = (
    OF_PODS,
    OF_REFERENCES,
    OF_THE_NETWORK,
    OF_THE_SERVICE,
    OF_REDIS,
    OF_CREDENTIALS,
    OF_SCALING,
    OF_ARTIFACTS,
    OF_SCHEMAS,
)
MUTATIONS = [pytest.param(*pair, id=name) for part in PARTS for name, pair in part.items()]


@pytest.mark.parametrize(("check", "breaks"), MUTATIONS)
def test_a_break_is_noticed(check: Check, breaks: Break, production: Manifests) -> None:
    assert list(check(production)) == []
    broken = Manifests(copy.deepcopy(production.objects))
    breaks(broken)
    assert list(check(broken)) != []


@pytest.mark.skipif(schemas.crd_folder() is None, reason="no CRDs beside the checkout; K8S_CRDS names their folder")
@pytest.mark.parametrize("name", CUSTOM)
def test_a_break_of_a_custom_resource_is_noticed(name: str, production: Manifests) -> None:
    CUSTOM[name](production)
    assert list(schemas.custom(production)) != []


@pytest.mark.parametrize("name", VOLUME)
def test_a_break_of_the_shared_volume_is_noticed(name: str, scratch: Path) -> None:
    manifests = Manifests(variant("single-gpu", scratch))  # the decoder runs beside the denoiser
    assert list(artifacts.artifacts(manifests)) == []
    VOLUME[name](manifests)
    assert list(artifacts.artifacts(manifests)) != []
