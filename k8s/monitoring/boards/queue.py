"""Who waits, how long, and who gets the workers."""

from k8s.monitoring.panels import Panel, Query, one, quantiles, rate

REFUSED = 'helios_grpc_requests_total{method=~"SubmitJob|GenerateVideo|Interact", code="RESOURCE_EXHAUSTED"}'

PANELS = [
    Panel(
        "Queue depth",
        "short",
        "Queued jobs by priority, and the limit at which submissions are refused.",
        (
            Query(expr="max by (priority) (helios_queue_depth)", legend="{{priority}}"),
            Query(expr="max(helios_queue_limit)", legend="limit"),
        ),
    ),
    Panel(
        "Queue wait",
        "s",
        "From queueing to the start of an attempt. Objective: 95% within 30 s.",
        quantiles("helios_queue_wait_seconds"),
        limit=30,
    ),
    Panel(
        "Attempts started",
        "ops",
        "By priority: who gets the workers. A priority that waits and has no starts is starved.",
        one(f"sum by (priority) ({rate('helios_job_starts_total')})", "{{priority}}"),
    ),
    Panel(
        "Expected wait by priority",
        "s",
        "Queued jobs over starts per second (Little's law), for priorities that have starts.",
        one(
            "max by (priority) (helios_queue_depth) / on (priority)"
            f" (sum by (priority) ({rate('helios_job_starts_total')}) > 0)",
            "{{priority}}",
        ),
    ),
    Panel(
        "Submissions refused",
        "reqps",
        "Answered RESOURCE_EXHAUSTED: the queue or the job store is full.",
        one(
            f"sum by (method) ({rate(REFUSED)})",
            "{{method}}",
        ),
    ),
    Panel(
        "Jobs set aside",
        "ops",
        "Between two chunks: outranked gives way to another job, paused waits for its client, ahead for a live reader.",
        one(f"sum by (reason) ({rate('helios_jobs_set_aside_total')})", "{{reason}}"),
    ),
    Panel(
        "Dead letters",
        "short",
        "Jobs that failed through no fault of their request and can be queued again (helios jobs requeue).",
        one("max(helios_dead_letters)", "dead letters"),
        limit=1,
    ),
    Panel(
        "Webhooks",
        "ops",
        "Calls at jobs' ends, by outcome: failed ones come again, given_up ones do not.",
        one(f"sum by (outcome) ({rate('helios_webhooks_total')})", "{{outcome}}"),
    ),
    Panel(
        "Running jobs",
        "short",
        "Jobs by dispatcher.",
        one("helios_running_jobs", "{{instance}}"),
    ),
    Panel(
        "Longest stall",
        "s",
        "Longest time since a running job's last chunk, by dispatcher. Alerts at 15 minutes.",
        one("helios_job_stall_seconds", "{{instance}}"),
        limit=900,
    ),
    Panel(
        "Calls in progress",
        "short",
        "By method; StreamVideo, GenerateVideo and Interact are clients that watch.",
        one("sum by (method) (helios_grpc_active_requests)", "{{method}}"),
    ),
    Panel(
        "Unary call time",
        "s",
        "95th percentile; streams last as long as their jobs and are left out.",
        quantiles("helios_grpc_request_seconds", matchers='method!~"StreamVideo|GenerateVideo|Interact|WatchJob"'),
    ),
]
