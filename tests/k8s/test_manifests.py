"""Every overlay, alone and with components, passes every check."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from helios_engine.accelerate.compiling import CACHES
from k8s import artifacts, credentials, network, policies, redis_servers, references, scaling, schemas, service
from k8s.build import K8S, variant
from k8s.manifests import Manifests

Check = Callable[[Manifests], Iterator[str]]
CHECKS: list[Check] = [
    *policies.CHECKS,
    *references.CHECKS,
    *network.CHECKS,
    *service.CHECKS,
    *redis_servers.CHECKS,
    *credentials.CHECKS,
    *artifacts.CHECKS,
    *scaling.CHECKS,
    schemas.built_in,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.__module__.rpartition('.')[2]}.{check.__name__}")
def test_check(manifests: Manifests, check: Check) -> None:
    assert list(check(manifests)) == []


@pytest.mark.skipif(schemas.crd_folder() is None, reason="no CRDs beside the checkout; K8S_CRDS names their folder")
def test_custom_resources_fit_their_definitions(manifests: Manifests) -> None:
    assert list(schemas.custom(manifests)) == []


def test_production_has_tls_says_little_and_is_traced(production: Manifests) -> None:
    config = service.gateway_config(production)
    assert config.gateway.reflection is False
    assert config.tracing.otlp_endpoint
    environ = production.environment(production.pod("gateway").main)
    assert environ["HELIOS_GATEWAY__TLS_CERTIFICATE_FILE"] == "/etc/helios-tls/tls.crt"
    (source,) = (volume["secret"] for volume in production.pod("gateway").spec["volumes"] if volume["name"] == "tls")
    # the keys of a Secret of type kubernetes.io/tls, which is what cert-manager writes
    assert [entry["key"] for entry in source["items"]] == ["tls.crt", "tls.key"]


@pytest.mark.parametrize("name", ["single-gpu+compile-cache", "production+all"])
def test_what_denoisers_compile_can_outlive_their_pods(scratch: Path, name: str) -> None:
    pod = Manifests(variant(name, scratch)).pod("ray-denoiser")
    (volume,) = (volume for volume in pod.spec["volumes"] if volume["name"] == "compile-cache")
    (mount,) = (mount for mount in pod.main["volumeMounts"] if mount["name"] == "compile-cache")
    assert "persistentVolumeClaim" in volume
    assert not mount.get("readOnly")
    environ = {variable["name"]: variable.get("value", "") for variable in pod.main["env"]}
    for variable in CACHES:  # which the engine then leaves as they are
        assert Path(environ[variable]).parent == Path(mount["mountPath"])


def test_every_yaml_file_is_part_of_a_build() -> None:
    named = {"kustomization.yaml"}
    for path in K8S.rglob("kustomization.yaml"):
        tree = yaml.safe_load(path.read_text())
        named |= {str(entry) for entry in [*tree.get("resources", []), *tree.get("configurations", [])]}
        named |= {patch["path"] for patch in tree.get("patches", []) if "path" in patch}
        for generator in tree.get("configMapGenerator", []):
            named |= {entry.rpartition("=")[2] for entry in [*generator.get("files", []), *generator.get("envs", [])]}
    ours = [
        path
        for path in K8S.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and "monitoring" not in path.relative_to(K8S).parts
    ]
    stray = [path for path in ours if path.name not in named and f"{path.parent.name}/{path.name}" not in named]
    assert stray == []
