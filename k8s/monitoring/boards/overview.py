"""Is the service well, and does it keep its objectives?"""

from k8s.monitoring.panels import Panel, Query, one, quantiles, rate

ERRORS = 'helios_grpc_requests_total{code=~"INTERNAL|UNKNOWN|UNAVAILABLE|DATA_LOSS"}'

PANELS = [
    Panel("Gateways up", "short", "Gateways that answer scrapes.", one('sum(up{job="helios-gateway"})', "up"), "stat"),
    Panel(
        "Dispatchers up",
        "short",
        "Dispatchers that answer scrapes. Without one, jobs are accepted and wait.",
        one('sum(up{job="helios-dispatcher"})', "up"),
        "stat",
    ),
    Panel(
        "Error budget burn, 1 h",
        "short",
        "How many times faster than allowed each objective's error budget burns; 1 lasts exactly a month.",
        one("slo:helios_errors:ratio_rate1h / (1 - slo:helios_objective:ratio)", "{{slo}}"),
        "stat",
        limit=1,
    ),
    Panel(
        "Jobs ended",
        "ops",
        "Jobs per second reaching a final state, from the store's own counter.",
        one(f"max by (state) ({rate('helios_jobs_total')})", "{{state}}"),
    ),
    Panel(
        "Jobs queued and running",
        "short",
        "Jobs that wait, and jobs that dispatchers drive.",
        (
            Query(expr="sum(max by (priority) (helios_queue_depth))", legend="queued"),
            Query(expr="sum(helios_running_jobs)", legend="running"),
        ),
    ),
    Panel(
        "Frames generated",
        "ops",
        "Frames per second over all jobs.",
        one(f"sum({rate('helios_generated_frames_total')})", "frames/s"),
    ),
    Panel(
        "Time to first chunk",
        "s",
        "From submission to the first chunk, queueing included. Objective: 95% within 10 s.",
        quantiles("helios_time_to_first_chunk_seconds"),
        limit=10,
    ),
    Panel(
        "Calls by code",
        "reqps",
        "API calls that ended, by gRPC status code.",
        one(f"sum by (code) ({rate('helios_grpc_requests_total')})", "{{code}}"),
    ),
    Panel(
        "Calls that failed through our fault",
        "percentunit",
        "INTERNAL, UNKNOWN, UNAVAILABLE and DATA_LOSS among all calls. Alerts at 5%.",
        one(f"(sum({rate(ERRORS)}) or vector(0)) / sum({rate('helios_grpc_requests_total')})", "errors"),
        limit=0.05,
    ),
]
