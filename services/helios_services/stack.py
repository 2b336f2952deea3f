"""The whole service on one machine: Redis, Ray with the Serve application, and a gateway in a process of its own.

Nothing of it listens beyond loopback, and other users of the machine reach none of its files.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from helios_services.config import ConfigError, ServiceConfig
from helios_services.deployments.serving import serving, settled
from helios_services.jobs.embedded import with_redis
from helios_services.media.sandbox_check import check_sandbox, for_one_machine
from helios_services.private_files import check_folder, private_folder, private_umask
from helios_services.telemetry.logs import configure_logging

STOP_MARGIN_S = 5.0


@contextmanager
def running_stack(config: ServiceConfig) -> Iterator[str]:
    """Yields the gateway's address. On exit: the gateway drains, then the workers, then Redis is stopped.

    Raises CheckpointError or ConfigError when something cannot start.
    """
    configure_logging(config.log_level)
    config = settled(config).model_copy(update={"media": for_one_machine(config.media)})
    check_sandbox(config.media)
    check_folder("state_dir", config.state_dir)
    for folder in (config.state_dir / "artifacts", config.compile_cache):
        private_folder(folder)
    with private_umask(), with_redis(config) as config, serving(config), _gateway(config) as address:
        yield address


@contextmanager
def _gateway(config: ServiceConfig) -> Iterator[str]:
    settings = config.model_dump_json()
    # its own session: Ctrl-C in a terminal reaches this process, which ends the gateway in order
    process = subprocess.Popen(
        [sys.executable, "-m", "helios_services.gateway.main"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")},
        start_new_session=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(settings)
        process.stdin.close()
        name, _, address = process.stdout.readline().strip().partition(" ")
        if name != "gateway:":
            raise ConfigError("gateway: did not start; its message is above")
        yield address
    finally:
        process.terminate()
        try:
            process.wait(config.gateway.drain_s + STOP_MARGIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
