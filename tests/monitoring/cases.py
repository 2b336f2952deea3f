"""When each alert is silent and when it fires: series in promtool's notation (one sample a minute), times in minutes.

The figures are written out rather than taken from the rules, so that a changed threshold or window fails a case.
"""

from dataclasses import dataclass, field
from itertools import accumulate


@dataclass(frozen=True)
class Case:
    """`series` makes `alert` silent at `silent` and firing at `fires`."""

    alert: str
    series: dict[str, str]
    silent: tuple[int, ...] = ()
    fires: tuple[int, ...] = ()
    annotations: dict[str, str] = field(default_factory=dict)
    """Label and annotation texts expected at the first of `fires`, for alerts whose texts are filled in."""


CALLS = "helios_grpc_requests_total"
HTTP_CALLS = 'helios_http_requests_total{code="%s"}'
RAY = 'application="helios",deployment="denoiser"'
UP = 'up{job="%s",instance="a:1"}'
DEPTH = 'helios_queue_depth{priority="%s",instance="%s"}'
FULL = {DEPTH % ("normal", "a"): "99x40", "helios_queue_limit": "100x40"}
FAILED_CHECKS = f'ray_serve_health_check_failures_total{{{RAY},replica="%s"}}'
USED, LIMIT = "redis_memory_used_bytes", "redis_memory_max_bytes"

ALERTS = (
    Case("HeliosNoGateway", {UP % "helios-gateway": "1x9 0x9"}, silent=(5, 10), fires=(12,)),
    Case("HeliosNoGateway", {UP % "helios-gateway": "0x9", 'up{job="helios-gateway",instance="b:1"}': "1x9"}, (9,)),
    Case("HeliosNoDispatcher", {UP % "helios-dispatcher": "1x9 _x20"}, silent=(5, 10), fires=(22,)),
    # a pod without a dispatcher refuses the scrape; another has one
    Case("HeliosNoDispatcher", {UP % "helios-dispatcher": "0x9", 'up{job="helios-dispatcher"}': "1x9"}, (9,)),
    Case("HeliosTargetDown", {UP % "ray": "1x9 0x20"}, silent=(9, 18), fires=(21,)),
    Case("HeliosTargetDown", {UP % "helios-dispatcher": "0x30"}, silent=(30,)),
    Case(
        "HeliosGatewayErrors",
        {f'{CALLS}{{code="OK"}}': "0+100x40", f'{CALLS}{{code="INTERNAL"}}': "0+4x19 80+10x20"},
        silent=(10, 20),
        fires=(32,),
    ),
    Case(
        "HeliosGatewayErrors",
        {f'{CALLS}{{code="OK"}}': "0+1x40", HTTP_CALLS % "OK": "0+9x40", HTTP_CALLS % "INTERNAL": "0+1x40"},
        silent=(3,),
        fires=(12,),
    ),
    # the clients' own mistakes
    Case("HeliosGatewayErrors", {f'{CALLS}{{code="OK"}}': "0+1x30", f'{CALLS}{{code="NOT_FOUND"}}': "0+9x30"}, (30,)),
    Case(
        "HeliosQueueFull",
        {f'{CALLS}{{method="SubmitJob",code="RESOURCE_EXHAUSTED"}}': "0x9 0+1x20", **FULL},
        silent=(9, 12),
        fires=(18,),
    ),
    Case(  # through one door only
        "HeliosQueueFull",
        {'helios_http_requests_total{method="SubmitJob",code="RESOURCE_EXHAUSTED"}': "0x9 0+1x20", **FULL},
        silent=(9, 12),
        fires=(18,),
    ),
    Case(
        "HeliosQueueFull",
        {f'{CALLS}{{method="UploadMedia",code="RESOURCE_EXHAUSTED"}}': "0+1x20", **FULL},
        silent=(18,),
    ),
    # a key over its quota
    Case(
        "HeliosQueueFull",
        {
            f'{CALLS}{{method="SubmitJob",code="RESOURCE_EXHAUSTED"}}': "0+1x20",
            DEPTH % ("normal", "a"): "50x30",
            "helios_queue_limit": "100x30",
        },
        silent=(18,),
    ),
    Case("HeliosDeadLetters", {"helios_dead_letters": "0x9 1x20"}, silent=(9, 12), fires=(17,)),
    # two gateways say the same: 45% twice is not 90%
    Case(
        "HeliosQueueFilling",
        {
            DEPTH % ("batch", "a"): "45x20 85x20",
            DEPTH % ("batch", "b"): "45x20 85x20",
            'helios_queue_limit{instance="a"}': "100x40",
            'helios_queue_limit{instance="b"}': "100x40",
        },
        silent=(19, 25),
        fires=(33,),
    ),
    Case(
        "HeliosQueueStalled",
        {DEPTH % ("normal", "a"): "0x9 3x30", "helios_job_starts_total": "7x40", "helios_running_jobs": "0x40"},
        silent=(9, 15),
        fires=(24,),
    ),
    # jobs wait because others run, or are started
    Case(
        "HeliosQueueStalled",
        {DEPTH % ("normal", "a"): "3x40", "helios_job_starts_total": "7x40", "helios_running_jobs": "2x40"},
        silent=(40,),
    ),
    Case(
        "HeliosQueueStalled",
        {DEPTH % ("normal", "a"): "3x40", "helios_job_starts_total": "0+1x40", "helios_running_jobs": "0x40"},
        silent=(40,),
    ),
    Case("HeliosJobStuck", {'helios_job_stall_seconds{instance="a:1"}': "600x9 901x9"}, silent=(9,), fires=(12,)),
    # each dead replica is a series that begins at 1; two are bad luck, three are a pattern
    Case(
        "HeliosReplicaDeaths",
        {FAILED_CHECKS % "a": "_x4 1x60", FAILED_CHECKS % "b": "_x8 1x60", FAILED_CHECKS % "c": "_x30 1x60"},
        silent=(10, 32, 60),
    ),
    Case(
        "HeliosReplicaDeaths",
        {FAILED_CHECKS % "a": "_x4 1x60", FAILED_CHECKS % "b": "_x8 1x60", FAILED_CHECKS % "c": "_x12 1x60"},
        silent=(10, 40),
        fires=(15,),
        annotations={
            "summary": "Replicas keep dying.",
            "description": "3 replicas of denoiser died or failed health checks in 15 minutes.",
        },
    ),
    # a gap in the scrapes is no death
    Case(
        "HeliosReplicaDeaths",
        {FAILED_CHECKS % name: "1x30 _x8 1x40" for name in "abc"},
        silent=(46, 52, 60),
    ),
    Case("HeliosDeploymentUnhealthy", {f"ray_serve_deployment_status{{{RAY}}}": "6x9 3x9 2x9"}, (9, 18), (27,)),
    Case("HeliosDeploymentStuck", {f"ray_serve_deployment_status{{{RAY}}}": "3x20 6x9 3x60"}, (20, 50), (65,)),
    # scaling up is in order while some replica serves
    Case(
        "HeliosDeploymentStuck",
        {
            f"ray_serve_deployment_status{{{RAY}}}": "4x100",
            f"ray_serve_deployment_replica_healthy{{{RAY}}}": "1x20 0x80",
        },
        silent=(20, 45),
        fires=(60,),
    ),
    Case("HeliosDeploymentStuck", {f"ray_serve_deployment_status{{{RAY}}}": "4x20 6x9 4x60"}, (20, 50), (65,)),
    Case(
        "HeliosDispatcherNotReady",
        {'helios_dispatcher_ready{instance="a:1"}': "0x20 1x9 0x60", 'helios_dispatcher_ready{instance="b:1"}': "1x90"},
        silent=(20, 50),
        fires=(65,),
    ),
    Case(
        "HeliosStageRetries", {'helios_stage_retries_total{stage="decode"}': "0x9 0+0.5x20 10+2x20"}, (9, 28), (49,)
    ),
    Case(
        "HeliosGpuMemoryHigh",
        {
            'ray_node_gram_used{instance="a:1",GpuIndex="0"}': "76000x9 79500x20",
            'ray_node_gram_available{instance="a:1",GpuIndex="0"}': "4000x9 500x20",
        },
        silent=(9, 15),
        fires=(22,),
        annotations={
            "summary": "A GPU is nearly out of memory.",
            "description": "GPU 0 of a:1: 99.38% used.",
        },
    ),
    Case("HeliosHostMemoryHigh", {"ray_node_mem_used": "90x9 93x20", "ray_node_mem_total": "100x40"}, (9, 15), (22,)),
    Case(
        "HeliosObjectStoreSpilling",
        {
            'ray_object_store_memory{Location="SPILLED",instance="a:1"}': "0x9 1e9x20",
            'ray_object_store_memory{Location="MMAP_SHM",instance="a:1"}': "1e9x30",
        },
        silent=(9, 15),
        fires=(22,),
    ),
    Case("HeliosRedisDown", {"helios_job_store_up": "1x9 0x9", "redis_up": "1x20"}, (9, 10), (12,)),
    Case("HeliosRedisDown", {"helios_job_store_up": "1x20", "redis_up": "1x9 0x9"}, (9, 10), (12,)),
    Case("HeliosRedisMemoryHigh", {USED: "79x9 85x9", LIMIT: "100x30"}, (9, 12), (17,)),
    Case("HeliosRedisMemoryHigh", {USED: "85x20", LIMIT: "0x20"}, silent=(20,)),
    Case("HeliosRedisMemoryFull", {USED: "94x9 96x9", LIMIT: "100x30"}, (9, 10), (12,)),
    Case("HeliosRedisNotDurable", {"redis_aof_enabled": "1x9 0x9", "redis_aof_last_write_status": "1x20"}, (9,), (12,)),
    Case("HeliosRedisNotDurable", {"redis_aof_enabled": "1x20", "redis_aof_last_write_status": "1x9 0x9"}, (9,), (12,)),
    Case("HeliosRedisEvicting", {"redis_evicted_keys_total": "0x9 5x20"}, silent=(9, 25), fires=(12,)),
)  # fmt: skip


Phases = tuple[tuple[float, int], ...]
"""Share of bad events and minutes, one phase after the other."""


def slo_cases() -> tuple[Case, ...]:
    """For each objective: within budget, slow burn, fast burn and its end, and too few events to say."""
    within_slow_fast = {
        "HeliosChunkDeadline": (0.04, 0.25, 1.0),
        "HeliosFirstChunk": (0.04, 0.25, 1.0),
        "HeliosQueueWait": (0.04, 0.25, 1.0),
        "HeliosJobFailures": (0.009, 0.05, 0.2),
    }
    cases = []
    for alert, (within, slow, fast) in within_slow_fast.items():
        fast_burn, slow_burn = f"{alert}FastBurn", f"{alert}SlowBurn"
        cases += [
            Case(fast_burn, _events(alert, ((within, 150),)), silent=(60, 150)),
            Case(slow_burn, _events(alert, ((within, 150),)), silent=(60, 150)),
            Case(fast_burn, _events(alert, ((slow, 150),)), silent=(60, 150)),
            Case(slow_burn, _events(alert, ((slow, 150),)), fires=(150,)),
            # a bad hour after five good ones: 1 h and 5 min fire; six minutes later the 5 min end it
            Case(fast_burn, _events(alert, ((0, 300), (fast, 60), (0, 10))), silent=(300, 367), fires=(360,)),
            # half an hour of it after nothing: 6 h and 30 min fire; when it has been over for that long they end it
            Case(fast_burn, _events(alert, ((fast, 30), (0, 60))), silent=(62,), fires=(30,)),
            Case(fast_burn, _events(alert, ((1, 60),), per_minute=0.1), silent=(60,)),
        ]
    return tuple(cases)


def _events(alert: str, phases: Phases, per_minute: float = 100) -> dict[str, str]:
    total = _counter(tuple((1, minutes) for _, minutes in phases), per_minute)
    bad = _counter(phases, per_minute)
    good = _counter(tuple((1 - share, minutes) for share, minutes in phases), per_minute)
    if alert == "HeliosChunkDeadline":
        return {"helios_chunk_deadline_missed_total": bad, "helios_chunk_seconds_count": total}
    if alert == "HeliosJobFailures":  # two gateways say the same; cancelled jobs do not count
        return {
            f'helios_jobs_total{{state="{state}",instance="{gateway}"}}': values
            for state, values in {"failed": bad, "succeeded": good, "cancelled": "0+500x400"}.items()
            for gateway in ("a", "b")
        }
    metric, bound = {
        "HeliosFirstChunk": ("helios_time_to_first_chunk_seconds", "10.0"),
        "HeliosQueueWait": ("helios_queue_wait_seconds", "30.0"),
    }[alert]
    return {f"{metric}_count": total, f'{metric}_bucket{{le="{bound}"}}': good}


def _counter(phases: Phases, per_minute: float) -> str:
    """A counter's samples, minute by minute."""
    steps = [share * per_minute for share, minutes in phases for _ in range(minutes)]
    return " ".join(f"{value:g}" for value in accumulate(steps, initial=0.0))
