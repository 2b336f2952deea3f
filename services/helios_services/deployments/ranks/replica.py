"""The denoiser replica that spans several devices."""

from helios_services.config import ServiceConfig
from helios_services.deployments.ranks.group import RankGroup
from helios_services.deployments.replicas.denoiser import DenoiserReplica


class RankedDenoiserReplica(DenoiserReplica):
    """Rank 0 of a group: it is called as a replica on one device is, and leads the others."""

    def _load(self, config: ServiceConfig) -> RankGroup:
        self._group = RankGroup(config, self.device)
        return self._group

    async def __del__(self) -> None:
        """Called and awaited by Serve when the replica is shut down."""
        await self.run(self._group.close)
