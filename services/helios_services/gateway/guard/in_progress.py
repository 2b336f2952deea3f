"""How much of a gateway one key may hold at a time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from helios_services.gateway.guard.refusal import Code, Refusal

RETRY_S = 1.0


class InProgress:
    """Calls in progress, of everybody and of each key, through all doors of this process.

    Calls without a key (no keys are asked for) are bounded by the first limit alone: nobody can be told apart.
    """

    def __init__(self, most: int, most_of_a_key: int, what: str = "calls") -> None:
        self._most, self._most_of_a_key, self._what = most, most_of_a_key, what
        self._of_key: Counter[str] = Counter()

    @contextmanager
    def one(self, key_id: str) -> Iterator[None]:
        """Counts a call as long as it is open. Raises Refusal (RESOURCE_EXHAUSTED)."""
        if key_id and self._of_key[key_id] >= self._most_of_a_key:
            raise self._refused("_per_key", self._most_of_a_key, "of this API key")
        if self._of_key.total() >= self._most:
            raise self._refused("", self._most, "at this gateway")
        self._of_key[key_id] += 1
        try:
            yield
        finally:
            self._of_key[key_id] -= 1
            if not self._of_key[key_id]:
                del self._of_key[key_id]

    def _refused(self, whose: str, limit: int, where: str) -> Refusal:
        message = f"{limit} {self._what} are in progress {where}, which is all there may be"
        quota = f"concurrent_{self._what}{whose}"
        return Refusal(Code.RESOURCE_EXHAUSTED, message, quota=quota, retry_after_s=RETRY_S)
