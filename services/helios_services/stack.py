"""The whole service on one machine: Redis, Ray with the Serve application, and a gateway in a process of its own.

Nothing of it listens beyond loopback, and other users of the machine reach none of its files.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from helios_services.config import ServiceConfig
from helios_services.deployments.serving import serving, settled
from helios_services.gateway_process import Addresses, gateway_process
from helios_services.jobs.embedded import with_redis
from helios_services.media.sandbox_check import check_sandbox, for_one_machine
from helios_services.planning.plan import Plan
from helios_services.private_files import check_folder, private_folder, private_umask
from helios_services.processes.keeper import OnLost, unheeded
from helios_services.processes.state_folder import held
from helios_services.telemetry.logs import configure_logging


@contextmanager
def running_stack(
    config: ServiceConfig, on_lost: OnLost = unheeded, *, tell: Callable[[Plan], None] = lambda plan: None
) -> Iterator[Addresses]:
    """Yields the gateway's addresses. On exit: the gateway drains, then the workers, then Redis is stopped.

    A gateway or a Redis that ends by itself is started again. on_lost: is told of what cannot be, tell of
    the plan. Raises CheckpointError or ConfigError when something does not start.
    """
    configure_logging(config.log_level)
    config = settled(config, tell=tell).model_copy(update={"media": for_one_machine(config.media)})
    check_sandbox(config.media)
    check_folder("state_dir", config.state_dir)
    for folder in (config.state_dir / "artifacts", config.compile_cache):
        private_folder(folder)
    config = _with_token_secrets(config)
    with (
        private_umask(),
        held(config.state_dir),
        with_redis(config, on_lost) as config,
        serving(config, on_lost=on_lost),
        gateway_process(config, on_lost) as addresses,
    ):
        yield addresses


def _with_token_secrets(config: ServiceConfig) -> ServiceConfig:
    """Where keys are asked for, pages need tokens: a secret to sign them with, unless there is one; it stays."""
    if not config.gateway.api_keys_file or config.gateway.token_secrets_file:
        return config
    file = config.state_dir / "token-secrets"
    if not file.exists():
        file.touch(0o600)
        file.write_text(secrets.token_urlsafe(48) + "\n")
    gateway = config.gateway.model_copy(update={"token_secrets_file": str(file)})
    return config.model_copy(update={"gateway": gateway})
