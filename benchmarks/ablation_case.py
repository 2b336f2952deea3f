"""One optimisation with and without it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """with_it, without: the same work. `of`: the part that is timed. taken: whether the engine has it by default.

    exact: both compute the same within rounding; otherwise it is an option that trades precision.
    """

    name: str
    of: str
    with_it: Callable[[], object]
    without: Callable[[], object]
    taken: bool = True
    exact: bool = True
