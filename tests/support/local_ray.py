"""Ray on this machine, for tests that deploy."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from traceback import walk_tb
from typing import TypeVar

import ray
from ray import serve
from ray._private.node import Node

T = TypeVar("T")
TOO_SLOW = re.compile("timed out", re.IGNORECASE)


@contextmanager
def on_ray(start: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    """Enters what starts a Ray, and once more if Ray took too long to start: a machine under load is no finding."""
    with ExitStack() as stack:
        try:
            value = stack.enter_context(start())
        except Exception as error:
            if not TOO_SLOW.search(str(error)):
                raise
            _end_what_was_started(error)
            value = stack.enter_context(start())
        yield value


@contextmanager
def local_serve(num_cpus: int) -> Iterator[None]:
    """Serve without its HTTP proxy, on a Ray of its own. Its own actors need no CPU."""
    with on_ray(lambda: _serve(num_cpus)):
        yield


@contextmanager
def _serve(num_cpus: int) -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=num_cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 << 20,
        _node_ip_address="127.0.0.1",
    )
    try:
        serve.start(proxy_location="Disabled")
        yield
    finally:
        serve.shutdown()
        ray.shutdown()


def _end_what_was_started(error: BaseException) -> None:
    """A node that fails to start leaves its processes to the garbage collector; only the traceback still knows it."""
    ray.shutdown()
    for frame, _ in walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if isinstance(node, Node):
            node.kill_all_processes(check_alive=False, allow_graceful=False)
