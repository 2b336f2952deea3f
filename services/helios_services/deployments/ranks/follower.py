"""A rank of a denoiser replica after the first: repeats what the replica does."""

from helios_engine.parallel.ranks import leave_ranks
from helios_engine.sampling import drive
from helios_services.config import ServiceConfig
from helios_services.deployments.ranks.link import join
from helios_services.deployments.replicas.load_denoiser import load_denoiser
from helios_services.deployments.replicas.torch_replica import TorchReplica


class Follower(TorchReplica):
    """A Ray actor owned by the replica: it ends with it, whatever it is waiting for."""

    def __init__(self, config: ServiceConfig, rank: int) -> None:
        super().__init__(config, config.denoiser)
        self._config, self._rank = config, rank

    def prepare(self) -> None:
        """Loads the checkpoint. Raises CheckpointError."""
        self._denoiser = load_denoiser(self._config, self.device)

    def follow(self, address: str) -> None:
        """Joins the group and follows its leader; returns when the leader has closed the link."""
        link = join(self._denoiser, self._config.denoiser.parallel, rank=self._rank, address=address)
        drive.follow(link, self._denoiser)
        leave_ranks()
