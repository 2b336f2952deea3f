"""Into how many parts a forward is cut, and along which axes. Free of torch."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class ContextParallel:
    """Degrees of a mesh of cfg_degree x ring_degree x ulysses_degree ranks. Ranks of one Ulysses group are neighbours.

    ulysses_degree: ranks that trade sequence shards for head shards (all-to-all: needs a fast link, and a head for each
    rank). ring_degree: ranks that pass keys and values round (any number of heads, overlaps with the attention).
    cfg_degree: 2 runs the two halves of the batch, conditional and unconditional, on ranks of their own.
    Raises ValueError naming the field, the value and what is allowed.
    """

    ulysses_degree: int = 1
    ring_degree: int = 1
    cfg_degree: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{field.name}: {value!r} is not allowed; allowed: an integer from 1")
        if self.cfg_degree > 2:
            raise ValueError(f"cfg_degree: {self.cfg_degree!r} is not allowed; allowed: 1 or 2")

    @property
    def context_degree(self) -> int:
        """Parts that the sequence is cut into."""
        return self.ring_degree * self.ulysses_degree

    @property
    def world_size(self) -> int:
        """Ranks that the mesh has."""
        return self.cfg_degree * self.context_degree

    def check_world(self, ranks: int) -> None:
        """Raises ValueError unless the mesh has exactly this many ranks."""
        if self.world_size != ranks:
            raise ValueError(
                f"cfg_degree x ring_degree x ulysses_degree: {self.cfg_degree} x {self.ring_degree} x "
                f"{self.ulysses_degree} = {self.world_size} is not allowed; allowed: the number of ranks, {ranks}"
            )

    def check_heads(self, heads: int) -> None:
        """Raises ValueError if some rank of a Ulysses group would get none of this many attention heads."""
        if self.ulysses_degree > heads:
            raise ValueError(
                f"ulysses_degree: {self.ulysses_degree} is not allowed; allowed: 1 to {heads}, the number of attention "
                "heads (use ring_degree for more ranks)"
            )
