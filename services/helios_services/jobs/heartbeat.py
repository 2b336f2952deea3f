"""Renews leases from a thread and a connection of its own, so that a busy event loop does not lose them."""

import threading
from collections.abc import Callable
from typing import Any

import structlog
from redis.exceptions import RedisError

from helios_services.config import JobsConfig, RedisConfig
from helios_services.jobs.connect import blocking_client
from helios_services.jobs.keys import Keys
from helios_services.jobs.records import Lease
from helios_services.jobs.scripts import source

log = structlog.get_logger(__name__)


class Heartbeat:
    """Renews every lease it was given, every `heartbeat_s`, until it is removed or lost.

    Whether a lease is lost is the store's word alone (its lease token): during an outage of Redis it keeps trying.
    """

    def __init__(self, redis: RedisConfig, jobs: JobsConfig) -> None:
        self._root = Keys(redis.namespace).root
        self._lease_ms, self._period_s = int(jobs.lease_s * 1000), jobs.heartbeat_s
        self._redis = redis
        self._client: Any = None
        self._leases: dict[Lease, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def add(self, lease: Lease, on_lost: Callable[[], None]) -> None:
        """Renews `lease` from now on; `on_lost` is called once, from the heartbeat's thread, if it is gone."""
        with self._lock:
            self._leases[lease] = on_lost

    def remove(self, lease: Lease) -> None:
        """Stops renewing."""
        with self._lock:
            self._leases.pop(lease, None)

    def close(self) -> None:
        """Stops the thread."""
        self._stop.set()
        self._thread.join()
        if self._client is not None:
            self._client.close()

    def _run(self) -> None:
        reachable = True
        while not self._stop.wait(self._period_s):
            with self._lock:
                leases = list(self._leases)
            try:
                if leases and self._client is None:
                    self._client = blocking_client(self._redis, self._period_s)
                    self._renew = self._client.register_script(source("renew"))
                for lease in leases:
                    self._renew_one(lease)
                reachable = True
            except RedisError as error:
                if reachable:
                    log.warning("heartbeat_cannot_reach_redis", error=str(error), leases=len(leases))
                reachable = False

    def _renew_one(self, lease: Lease) -> None:
        answer = self._renew(keys=[self._root], args=[lease.job_id, lease.token, self._lease_ms])
        if answer[0] == b"ok":
            return
        with self._lock:
            on_lost = self._leases.pop(lease, None)
        if on_lost is not None:
            log.info("lease_lost", job_id=lease.job_id)
            try:
                on_lost()
            except Exception:  # for example a closed event loop; the other leases must go on being renewed
                log.exception("lease_lost_callback_failed", job_id=lease.job_id)
