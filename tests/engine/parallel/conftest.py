"""Rank processes that all tests of a file share."""

from collections.abc import Callable, Iterator

import pytest

from engine.parallel.launch import Ranks


@pytest.fixture(scope="module")  # idle ranks still cost CPU time
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Ranks]]:
    """Two or four ranks. A group that lost a process is started afresh."""
    groups: dict[int, Ranks] = {}

    def group(world_size: int) -> Ranks:
        if world_size in groups and groups[world_size].alive() < world_size:
            groups.pop(world_size).close()
        if world_size not in groups:
            groups[world_size] = Ranks(world_size, tmp_path_factory.mktemp("ranks"))
        return groups[world_size]

    yield group
    for started in groups.values():
        started.close()
