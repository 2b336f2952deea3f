"""Everything that talks to the job store of one configuration is made here."""

from dataclasses import dataclass

from helios_services.config import JobsConfig, RedisConfig
from helios_services.jobs.connect import store_client
from helios_services.jobs.heartbeat import Heartbeat
from helios_services.jobs.notify import Notifier
from helios_services.jobs.store import JobStore


@dataclass(frozen=True)
class Connector:
    """Makes connections of each kind; all of them connect on first use.

    Every method raises ConfigError for credentials that cannot be used.
    """

    redis: RedisConfig
    jobs: JobsConfig

    def store(self) -> JobStore:
        """A store to call."""
        return JobStore(store_client(self.redis), self.redis, self.jobs)

    def notifier(self) -> Notifier:
        """What tells when something changes."""
        return Notifier(self.redis)

    def heartbeat(self) -> Heartbeat:
        """What keeps leases. Its thread runs from now on."""
        return Heartbeat(self.redis, self.jobs)
