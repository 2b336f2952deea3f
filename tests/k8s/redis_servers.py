"""The Redis servers: durable, encrypted, and with users who may do what docs/security.md says and no more."""

from collections.abc import Iterator

from k8s.build import ROOT
from k8s.manifests import Manifests, Pod, quantity

GUIDE = ROOT / "docs/security.md"
WANTED = {
    "appendonly": "yes",
    "maxmemory-policy": "noeviction",
    "dir": "/data",
    "port": "0",
    "tls-port": "6379",
    "tls-cert-file": "/etc/redis-tls/tls.crt",
    "tls-key-file": "/etc/redis-tls/tls.key",
    "user": "default off",
}
"""Settings that every server has, whatever its size."""
EVERYTHING = {"allkeys", "~*", "allchannels", "&*", "allcommands", "+@all", "nopass", "+@dangerous", "+@admin"}
FIRST_PATCHED = (7, 2, 11)
"""The first of its line in which Lua's holes of October 2025 are mended."""


def documented_rights() -> str:
    """The rights of the store's user, as the `ACL SETUSER` line of docs/security.md has them."""
    line = next(line for line in GUIDE.read_text().splitlines() if line.startswith("ACL SETUSER helios "))
    return line.removeprefix("ACL SETUSER helios on >PASSWORD ")


def settings(manifests: Manifests) -> Iterator[str]:
    """Append-only, never evicting, TLS only, and with memory left for rewriting the append-only file."""
    for pod, files in _servers(manifests):
        lines = [line.split(maxsplit=1) for line in files["redis.conf"].splitlines() if line]
        given = {line[0]: line[1] for line in lines if line[0] != "#"}
        for key, value in WANTED.items():
            if given.get(key) != value:
                yield f"{pod.name}: {key} is {given.get(key)}, must be {value}"
        maxmemory = quantity(given["maxmemory"].replace("gb", "Gi").replace("mb", "Mi"))
        if maxmemory > 0.75 * quantity(pod.main["resources"]["limits"]["memory"]):
            yield f"{pod.name}: maxmemory leaves no room for a rewrite"
        version = pod.main["image"].partition(":")[2].partition("-")[0]
        if not version or tuple(map(int, version.split("."))) < FIRST_PATCHED:
            yield f"{pod.name}: {pod.main['image']} has holes that {'.'.join(map(str, FIRST_PATCHED))} mends"


def users(manifests: Manifests) -> Iterator[str]:
    """The store's user has the documented rights; only `admin`, whose password no other pod has, may do everything."""
    for pod, files in _servers(manifests):
        lines = [line.split(maxsplit=1) for line in files["users"].splitlines() if line and line[0] != "#"]
        given = dict(lines)
        passwords = {item["path"]: item["key"] for item in pod.volume("passwords")["secret"]["items"]}
        if set(given) != set(passwords):
            yield f"{pod.name}: users {sorted(given)}, passwords of {sorted(passwords)}"
        if "helios" in given and given["helios"] != documented_rights():
            yield f"{pod.name}: helios has other rights than {GUIDE.name} says"
        for name, rights in given.items():
            if name != "admin" and EVERYTHING & set(rights.split()):
                yield f"{pod.name}: {name} may do everything"
        secret = pod.volume("passwords")["secret"]["secretName"]
        for other in manifests.pods:
            if other.name != pod.name and (secret, "admin-password") in read_by(other):
                yield f"{other.name}: has the password of {pod.name}'s admin"
        if pod.main.get("env"):
            yield f"{pod.name}: its environment may hold a password"


def _servers(manifests: Manifests) -> Iterator[tuple[Pod, dict[str, str]]]:
    for pod in manifests.pods:
        if pod.name.startswith("StatefulSet/"):
            source = manifests.get("ConfigMap", pod.volume("conf")["configMap"]["name"])
            assert source is not None
            yield pod, source["data"]


def read_by(pod: Pod) -> set[tuple[str, str]]:
    """Secrets and keys that a pod has, in volumes or variables."""
    found = set()
    for volume in pod.spec.get("volumes", []):
        sources = [volume, *volume.get("projected", {}).get("sources", [])]
        for secret in (source["secret"] for source in sources if "secret" in source):
            found |= {(secret.get("secretName") or secret["name"], item["key"]) for item in secret.get("items", [])}
    for container in pod.containers:
        for variable in container.get("env", []):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                found.add((reference["name"], reference["key"]))
    return found


CHECKS = (settings, users)
