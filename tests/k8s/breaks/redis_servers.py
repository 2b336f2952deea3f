"""Breaks of the Redis servers."""

from k8s import redis_servers
from k8s.breaks.edits import Breaks, container, projected
from k8s.manifests import Manifests


def _users(manifests: Manifests, old: str, new: str) -> None:
    sources = [item["data"] for item in manifests.of_kind("ConfigMap") if old in item["data"].get("users", "")]
    assert sources
    for source in sources:
        source["users"] = source["users"].replace(old, new)


def _redis_conf(manifests: Manifests, old: str, new: str) -> None:
    for item in manifests.of_kind("ConfigMap"):
        if "redis.conf" in item["data"]:
            item["data"]["redis.conf"] = item["data"]["redis.conf"].replace(old, new)


BREAKS: Breaks = {
    "a Redis that evicts": (redis_servers.settings, lambda m: _redis_conf(m, "noeviction", "allkeys-lru")),
    "a Redis that forgets": (redis_servers.settings, lambda m: _redis_conf(m, "appendonly yes", "appendonly no")),
    "a Redis that fills its pod": (
        redis_servers.settings,
        lambda m: _redis_conf(m, "maxmemory 24gb", "maxmemory 31gb"),
    ),
    "a Redis without TLS": (redis_servers.settings, lambda m: _redis_conf(m, "port 0", "port 6379")),
    "a Redis for anyone": (redis_servers.settings, lambda m: _redis_conf(m, "user default off", "user default on")),
    "a Redis with holes": (
        redis_servers.settings,
        lambda m: container(m, "redis").update(image="redis:7.2.7-bookworm"),
    ),
    "more rights than documented": (redis_servers.users, lambda m: _users(m, "+zscore", "+zscore +flushall")),
    "an exporter that may do everything": (
        redis_servers.users,
        lambda m: _users(m, "exporter resetkeys", "exporter ~*"),
    ),
    "a user without a password": (
        redis_servers.users,
        lambda m: m.pod("redis").volume("passwords")["secret"]["items"].pop(),
    ),
    "an admin's password in a gateway": (
        redis_servers.users,
        lambda m: projected(m, "gateway")[0]["secret"]["items"].append({"key": "admin-password", "path": "admin"}),
    ),
}
