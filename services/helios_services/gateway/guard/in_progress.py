"""How much of a gateway one key, or one tenant, may hold at a time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from helios_services.gateway.guard.refusal import Code, Refusal

RETRY_S = 1.0


class InProgress:
    """What is in progress, of everybody and of each holder, through all doors of this process.

    Calls without a key (no keys are asked for) are bounded by the first limit alone: nobody can be told apart.
    what: is counted, in the plural. whose: what a holder is: API key, or tenant.
    """

    def __init__(self, most: int, most_of_one: int, what: str = "calls", whose: str = "API key") -> None:
        self._most, self._most_of_one, self._what, self._whose = most, most_of_one, what, whose
        self._of: Counter[str] = Counter()

    def one(self, holder: str) -> AbstractContextManager[None]:
        """Counts one as long as the block runs. Raises Refusal (RESOURCE_EXHAUSTED)."""
        return self.some(holder, 1)

    @contextmanager
    def some(self, holder: str, amount: int) -> Iterator[None]:
        """Counts so many. Raises as `one` does."""
        if holder and self._of[holder] + amount > self._most_of_one:
            raise self._refused(f"_per_{self._whose.split()[-1]}", self._most_of_one, f"of this {self._whose}")
        if self._of.total() + amount > self._most:
            raise self._refused("", self._most, "at this gateway")
        self._of[holder] += amount
        try:
            yield
        finally:
            self._of[holder] -= amount
            if not self._of[holder]:
                del self._of[holder]

    def _refused(self, whose: str, limit: int, where: str) -> Refusal:
        message = f"{limit:,} {self._what} may be in progress {where} at a time, and no more is left for this one"
        quota = f"concurrent_{self._what.replace(' ', '_')}{whose}"
        return Refusal(Code.RESOURCE_EXHAUSTED, message, quota=quota, retry_after_s=RETRY_S)
