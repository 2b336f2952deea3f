"""A store with room for little, so that histories come to its limits, and the accounts that use it."""

from helios_services.config import JobsConfig
from helios_services.jobs.charge import CHUNK_MS
from helios_services.jobs.records import Account

NAMESPACE = "model"
FAR_S = 10_000.0
"""What is so far away never comes in a test; times pass because the test says so."""
JOBS = JobsConfig(
    lease_s=FAR_S,
    heartbeat_s=1.0,
    max_queued=6,
    max_attempts=2,
    fair_quantum_chunks=2.0,
    live_window_chunks=2,
    max_prompt_updates=2,
    session_grace_s=FAR_S,
    pause_limit_s=FAR_S,
    job_ttl_s=FAR_S,
    chunk_ttl_s=FAR_S,
    max_job_bytes=1000,
    max_prompt_update_bytes=190,
    max_account_bytes=24_000,
)
ACCOUNTS = (
    Account(id="a"),
    Account(id="b", weight=3.0, max_running=1),
    Account(id="c", max_queued=2, video_minutes_per_day=6 * CHUNK_MS / 60_000),
)
