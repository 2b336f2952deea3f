"""The job store: memory, durability, load."""

from k8s.monitoring.panels import Panel, Query, one, rate

SECONDS, COMMANDS = "redis_commands_duration_seconds_total", "redis_commands_total"
SENT = '{cmd=~"evalsha|get|mget|hgetall|lrange|publish|zcard"}'
SCRIPTS = '{cmd="evalsha"}'

PANELS = [
    Panel(
        "Store answers",
        "short",
        "1 if the job store answered the gateways' last question.",
        one("min(helios_job_store_up)", "as gateways see it"),
        "stat",
    ),
    Panel(
        "Memory",
        "bytes",
        "Used, and the limit at which submissions are refused (0: none is set).",
        (
            Query(expr="redis_memory_used_bytes", legend="used"),
            Query(expr="redis_memory_max_bytes", legend="maxmemory"),
        ),
    ),
    Panel("Keys", "short", "By database.", one("sum by (db) (redis_db_keys > 0)", "{{db}}")),
    Panel(
        "Commands",
        "ops",
        "Per second, of those that jobs, chunks and their delivery consist of.",
        one(f"sum by (cmd) ({rate(f'{COMMANDS}{SENT}')})", "{{cmd}}"),
    ),
    Panel(
        "Mean command time",
        "s",
        "Of scripts (every change of a job is one), and of all commands.",
        (
            Query(
                expr=f"sum({rate(f'{SECONDS}{SCRIPTS}')}) / sum({rate(f'{COMMANDS}{SCRIPTS}')})",
                legend="evalsha",
            ),
            Query(
                expr=f"sum({rate(SECONDS)}) / sum({rate(COMMANDS)})",
                legend="all",
            ),
        ),
    ),
    Panel("Clients", "short", "Connections.", one("redis_connected_clients", "{{instance}}")),
    Panel(
        "Append-only file",
        "bytes",
        "Size on disk; it shrinks when Redis rewrites it.",
        one("redis_aof_current_size_bytes", "{{instance}}"),
    ),
    Panel(
        "Durability",
        "short",
        "1 each: the append-only file is on, and its last write succeeded.",
        (
            Query(expr="min(redis_aof_enabled)", legend="enabled"),
            Query(expr="min(redis_aof_last_write_status)", legend="last write"),
        ),
    ),
    Panel(
        "Network",
        "Bps",
        "Bytes per second; chunks go in once and out once per client.",
        (
            Query(expr=f"sum({rate('redis_net_input_bytes_total')})", legend="in"),
            Query(expr=f"sum({rate('redis_net_output_bytes_total')})", legend="out"),
        ),
    ),
]
