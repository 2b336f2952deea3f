"""Network policies as a graph: who may talk to whom, and that those who must, can."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from k8s.build import Object
from k8s.manifests import COMPONENT, Manifests, Pod, selects
from k8s.references import has_port
from k8s.service import gateway_config

OUTWARD = {"gateway"}
OPEN = [{"port": "grpc"}, {"port": "http"}]
NEEDED = {
    ("gateway", "redis", 6379),
    ("ray-cpu", "redis", 6379),
    ("ray-head", "gcs-redis", 6379),
    ("ray-cpu", "ray-denoiser", 52365),
    ("ray-denoiser", "ray-head", 6379),
}
"""From, to, port: what the architecture needs."""
METRICS = {"gateway": 9464, "ray-cpu": 9465}
TRACED = ("gateway", "ray-cpu")
"""Whose processes record spans."""
UNKNOWN_ADDRESSES = {"autoscaler"}
"""Policies that let pods out to what has a private address that no selector can name: the API server."""
PRIVATE = {"10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"}
"""What is no way out of the cluster, to buckets, the model hub and receivers of webhooks."""
MAY_ASK = {"redis": {"gateway", "ray-cpu", "redis-exporter"}, "gcs-redis": {"ray-head"}}
OPERATOR = ("ray-head", 8265)


def resolve(manifests: Manifests) -> Iterator[str]:
    """Policies select pods, their peers exist, and named ports are ports of the selected pods."""
    for policy in manifests.of_kind("NetworkPolicy"):
        name, spec = policy["metadata"]["name"], policy["spec"]
        chosen = [pod for pod in manifests.pods if selects(spec["podSelector"], pod.labels)]
        if not chosen:
            yield f"NetworkPolicy {name}: selects nothing"
        for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
            for peer in [*rule.get("from", []), *rule.get("to", [])]:
                ours = "podSelector" in peer and "namespaceSelector" not in peer
                if ours and not any(selects(peer["podSelector"], pod.labels) for pod in manifests.pods):
                    yield f"NetworkPolicy {name}: peer {peer['podSelector']} selects nothing"
        for rule in spec.get("ingress", []):
            for port in rule.get("ports", []):
                if not all(has_port(pod, port["port"]) for pod in chosen):
                    yield f"NetworkPolicy {name}: not all its pods have port {port['port']}"


def closed(manifests: Manifests) -> Iterator[str]:
    """Everything is denied unless allowed, and the gateway's two API ports are all that anyone may reach."""
    deny = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if not any(policy["spec"] == deny for policy in manifests.of_kind("NetworkPolicy")):
        yield "no policy denies by default"
    for pod in manifests.pods:
        for rule in _rules(manifests, pod, "ingress"):
            if rule.get("from"):
                continue
            if pod.labels[COMPONENT] not in OUTWARD or rule.get("ports") != OPEN:
                yield f"{pod.name}: open to the world: {rule}"
    for item in manifests.of_kind("Service"):
        inside = item["spec"].get("type", "ClusterIP") == "ClusterIP"
        if not inside and item["spec"]["selector"].get(COMPONENT) not in OUTWARD:
            yield f"Service {item['metadata']['name']}: leaves the cluster"


def narrow(manifests: Manifests) -> Iterator[str]:
    """Rules name pods or addresses, and ports: whole namespaces are let in or reached nowhere."""
    for policy in manifests.of_kind("NetworkPolicy"):
        name, spec = policy["metadata"]["name"], policy["spec"]
        for key, rules in (("from", spec.get("ingress", [])), ("to", spec.get("egress", []))):
            for rule in rules:
                peers = rule.get(key, [])
                if any("podSelector" not in peer and "ipBlock" not in peer for peer in peers):
                    yield f"NetworkPolicy {name}: opens to a whole namespace: {rule}"
                if not peers and (key == "from" or name not in UNKNOWN_ADDRESSES) and rule != {"ports": OPEN}:
                    yield f"NetworkPolicy {name}: names no peer: {rule}"
                among_ray = [{"podSelector": {"matchLabels": {"helios.dev/runtime": "ray"}}}]
                everywhere = [peer["ipBlock"] for peer in peers if peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0"]
                if any(not set(block.get("except", ())) >= PRIVATE for block in everywhere):
                    yield f"NetworkPolicy {name}: opens to private addresses: {rule}"
                if not rule.get("ports") and peers != among_ray:
                    yield f"NetworkPolicy {name}: names no port: {rule}"
    pods = {pod.labels[COMPONENT]: pod for pod in manifests.pods}
    for source, pod in pods.items():
        for store in MAY_ASK.keys() & pods.keys():
            reaches = _allows(manifests, pod, "egress", pods[store], 6379)
            let_in = _allows(manifests, pods[store], "ingress", pod, 6379)
            if (reaches or let_in) and source not in MAY_ASK[store]:
                yield f"{pod.name}: reaches {store}"


def connected(manifests: Manifests) -> Iterator[str]:
    """What has to talk can: both ends allow it."""
    pods = {pod.labels[COMPONENT]: pod for pod in manifests.pods}
    for source, target, port in sorted(NEEDED):
        if source not in pods or target not in pods:
            continue  # a component took one end away
        if not _allows(manifests, pods[source], "egress", pods[target], port):
            yield f"{source} may not send to {target}:{port}"
        if not _allows(manifests, pods[target], "ingress", pods[source], port):
            yield f"{target} does not let {source} in on {port}"
    for component, port in [*METRICS.items(), OPERATOR]:
        rules = _rules(manifests, pods[component], "ingress")
        if not any(_from_namespace(rule) and _on(rule, pods[component], port) for rule in rules):
            yield f"{component}: nobody may read port {port}"


def traced(manifests: Manifests) -> Iterator[str]:
    """Those that record spans reach the collector that the configuration names, and nobody does without one."""
    endpoint = gateway_config(manifests).tracing.otlp_endpoint
    if not endpoint:
        return
    address = urlsplit(endpoint)
    _, namespace, *rest = (address.hostname or "").split(".")
    if rest != ["svc"]:
        yield f"tracing: {endpoint} is not the name of a Service with its namespace"
    where = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    for component in TRACED:
        rules = _rules(manifests, manifests.pod(component), "egress")
        met = [
            rule.get("ports") == [{"port": address.port}]
            for rule in rules
            for peer in rule.get("to", [])
            if peer.get("namespaceSelector") == where
        ]
        if not any(met):
            yield f"{component} may not send to {endpoint}"


def _rules(manifests: Manifests, pod: Pod, direction: str) -> list[Object]:
    policies = [item["spec"] for item in manifests.of_kind("NetworkPolicy")]
    chosen = [spec for spec in policies if selects(spec["podSelector"], pod.labels)]
    return [rule for spec in chosen for rule in spec.get(direction, [])]


def _allows(manifests: Manifests, pod: Pod, direction: str, peer: Pod, port: int) -> bool:
    key, listener = ("from", pod) if direction == "ingress" else ("to", peer)
    for rule in _rules(manifests, pod, direction):
        peers = rule.get(key, [])
        met = not peers or any("podSelector" in p and selects(p["podSelector"], peer.labels) for p in peers)
        if met and _on(rule, listener, port):
            return True
    return False


def _on(rule: Object, listener: Pod, port: int) -> bool:
    names = {entry["name"] for entry in listener.main.get("ports", []) if entry["containerPort"] == port}
    return not rule.get("ports") or any(entry["port"] == port or entry["port"] in names for entry in rule["ports"])


def _from_namespace(rule: Object) -> bool:
    return any("namespaceSelector" in peer for peer in rule.get("from", []))


CHECKS = (resolve, closed, narrow, connected, traced)
