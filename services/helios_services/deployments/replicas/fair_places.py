"""Places for long calls, of which no tenant has two."""

from collections.abc import Callable

from helios_services.deployments.dispatch.stages import Busy


class FairPlaces:
    """So many calls at a time; of one tenant one, where tenants can be told apart. Belongs to one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: list[str] = []

    def take(self, tenant: str) -> Callable[[], None]:
        """Takes a place, and returns what gives it back. Raises Busy: the caller comes again, perhaps elsewhere."""
        if len(self._taken) >= self._most or (tenant and tenant in self._taken):
            raise Busy(f"{len(self._taken)} uploads are being decoded")
        self._taken.append(tenant)
        return lambda: self._taken.remove(tenant)
