"""Ray Serve on a Ray of its own, for tests that deploy single replicas."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray import serve


@contextmanager
def local_serve(num_cpus: int) -> Iterator[None]:
    """Serve without its HTTP proxy. Its own actors need no CPU."""
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
