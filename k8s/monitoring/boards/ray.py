"""Devices, replicas, object store, nodes."""

from k8s.monitoring.panels import Panel, Query, one, rate

# Ray names a replica by what it is doing, "ray::ServeReplica:helios:decoder.check_health": only the replica is kept
PROCESS_MEMORY = (
    'label_replace(ray_component_rss_bytes{Component=~"ray::ServeReplica.*|raylet|gcs"},'
    ' "process", "$1", "Component", "(?:ray::ServeReplica:[^:]+:)?([^.]+).*")'
)

PANELS = [
    Panel(
        "GPU memory",
        "percentunit",
        "Used memory by GPU, as Ray sees it. Alerts at 97%.",
        one("ray_node_gram_used / (ray_node_gram_used + ray_node_gram_available)", "{{instance}} {{GpuIndex}}"),
        limit=0.97,
    ),
    Panel("GPU utilisation", "percent", "By GPU.", one("ray_node_gpus_utilization", "{{instance}} {{GpuIndex}}")),
    Panel(
        "Peak memory by stage",
        "bytes",
        "The most that torch has allocated since the replica started; of the replica that made the last chunk.",
        one("max by (stage) (helios_gpu_memory_bytes)", "{{stage}}"),
    ),
    Panel(
        "Deployment state",
        "short",
        "Serve's number: 6 healthy, 4 and 5 scaling, 3 updating, 2 unhealthy, 1 failed to deploy.",
        one('min by (deployment) (ray_serve_deployment_status{application="helios"})', "{{deployment}}"),
    ),
    Panel(
        "Replicas alive",
        "short",
        "Actors that Ray's control store counts as alive.",
        one('sum by (Name) (ray_actors{Source="gcs", State="ALIVE", Name=~"ServeReplica:.*"})', "{{Name}}"),
    ),
    Panel(
        "Replica failures",
        "short",
        "Replicas that died or failed health checks in 15 minutes. Alerts at 3.",
        one("helios:replica_failures:increase15m", "{{deployment}}"),
        limit=3,
    ),
    Panel(
        "Stage retries",
        "ops",
        "Calls repeated because a replica was lost or not there.",
        one(f"sum by (stage) ({rate('helios_stage_retries_total')})", "{{stage}}"),
    ),
    Panel(
        "Requests in replicas",
        "short",
        "Being processed, and waiting at the dispatchers' handles.",
        (
            Query(
                expr='sum by (deployment) (ray_serve_replica_processing_queries{application="helios"})',
                legend="{{deployment}} in progress",
            ),
            Query(
                expr='sum by (deployment) (ray_serve_deployment_queued_queries{application="helios"})',
                legend="{{deployment}} waiting",
            ),
        ),
    ),
    Panel(
        "Object store",
        "bytes",
        "Latents in shared memory; anything spilled to disk costs time.",
        one("sum by (Location) (ray_object_store_memory)", "{{Location}}"),
    ),
    Panel(
        "Node CPU",
        "percent",
        "By Ray node.",
        one("ray_node_cpu_utilization", "{{instance}}"),
    ),
    Panel(
        "Node memory",
        "percentunit",
        "By Ray node. Alerts at 92%.",
        one("ray_node_mem_used / ray_node_mem_total", "{{instance}}"),
        limit=0.92,
    ),
    Panel(
        "Resident memory by component",
        "bytes",
        "Ray's processes and the replicas.",
        one(f"sum by (process) ({PROCESS_MEMORY})", "{{process}}"),
    ),
]
