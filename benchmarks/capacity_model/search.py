"""The smallest number that is enough."""

from collections.abc import Callable


def smallest(
    enough: Callable[[int], bool], *, at_least: int, at_most: int = 10**6, resolution: float = 0.01
) -> int | None:
    """Steps up from `at_least` until `enough`, then halves the last step down to a share `resolution` of the answer.

    Takes for granted that more is never worse. None: `at_most` is not enough.
    """
    low, high, step = at_least - 1, at_least, 0.05
    while not enough(high):
        if high >= at_most:
            return None
        low, high = high, min(max(high + 1, round(high * (1 + step))), at_most)
        step *= 2
    while high - low > max(1, resolution * high):
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high
